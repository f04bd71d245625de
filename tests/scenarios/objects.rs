//! The kinds of Sheath's objects on a real API server: what it explains, what it takes, and what it refuses.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use serde::Deserialize;
use serde_json::{Value, json};
use sheath_tests::cluster::scene::LIMIT;
use sheath_tests::cluster::turn::Turn;
use sheath_tests::cluster::{Cluster, helm, shared};
use sheath_tests::{binaries, names, wait};

const KINDS: [(&str, &str); 5] = [
    ("WorkloadPolicy", "workloadpolicies"),
    ("AuthorizationPolicy", "authorizationpolicies"),
    ("ExternalPeer", "externalpeers"),
    ("TlsContext", "tlscontexts"),
    ("TrustDomain", "trustdomains"),
];

/// The kinds, in the cluster.
struct Definitions<'t> {
    text: String,
    turn: &'t Turn<'t>,
    /// For objects.
    namespace: String,
}

impl<'t> Definitions<'t> {
    /// Installs them as the chart has them, and waits until they are there for everybody.
    fn install(turn: &'t Turn<'t>) -> Self {
        let mut helm = Command::new(binaries::cluster_program("helm"));
        helm.args(["template", "sheath", "--namespace", "sheath-system"]).arg(helm::chart());
        helm.args(["--set", "objects.enabled=true", "--show-only", "templates/definitions.yaml"]);
        let output = helm.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let namespace = names::unique();
        turn.own(&namespace);
        let kubectl = turn.cluster.kubectl();
        kubectl.run(["create", "namespace", &namespace]).unwrap();
        let definitions = Self { text, turn, namespace };
        // Rules whose cost could be too high are refused here.
        kubectl.feed(["apply", "--server-side", "--filename=-"], &definitions.text).unwrap();
        for (kind, plural) in KINDS {
            let definition = format!("customresourcedefinition/{plural}.sheath.dev");
            kubectl
                .wait(&definitions.namespace, "condition=Established", &definition, LIMIT)
                .unwrap();
            let object = kubectl.get([&*definition]).unwrap();
            let conditions = object["status"]["conditions"].as_array().unwrap();
            let is_bad = |condition: &&Value| condition["type"] == "NonStructuralSchema";
            assert_eq!(conditions.iter().find(is_bad), None, "{kind}");
        }
        definitions
    }

    fn object(&self, kind: &str, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "sheath.dev/v1alpha1",
            "kind": kind,
            "metadata": match kind {
                "TrustDomain" => json!({"name": name}),
                _ => json!({"name": name, "namespace": self.namespace}),
            },
            "spec": spec,
        })
    }
}

impl Drop for Definitions<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--ignore-not-found", "--timeout=60s", "--filename=-"];
        if let Err(error) = self.turn.cluster.kubectl().feed(delete, &self.text) {
            eprintln!("error: the kinds are left: {error:#}");
        }
        // Who installs them next must not find them half gone.
        for (_, plural) in KINDS {
            let definition = format!("customresourcedefinition/{plural}.sheath.dev");
            let gone = ["wait", "--for=delete", "--timeout=60s", &definition];
            let _ = self.turn.cluster.kubectl().run(gone);
        }
    }
}

/// Asks whether an object could be created. What is said, if it could not.
fn ask(cluster: &Cluster, object: &Value) -> Result<(), String> {
    let arguments = ["create", "--dry-run=server", "--filename=-"];
    let answer = cluster.kubectl().feed(arguments, &object.to_string());
    answer.map(drop).map_err(|error| format!("{error:#}"))
}

/// An object that makes no sense, and what the API server says to it.
#[derive(Deserialize)]
struct Wrong {
    kind: String,
    name: Option<String>,
    spec: Value,
    said: String,
}

fn wrong() -> Vec<Wrong> {
    let path = helm::chart().join("../../../agent/src/objects/wrong.yaml");
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Whether a line of what was said has all of the words: the field and, behind what was written there, why.
fn says(said: &str, words: &str) -> bool {
    let (field, reason) = words.split_once("Invalid value: ").unwrap_or((words, ""));
    said.lines().any(|line| line.contains(field) && line.contains(reason))
}

#[test]
fn the_api_server_refuses_what_makes_no_sense_and_names_the_field() {
    let turn = shared::turn();
    let definitions = Definitions::install(&turn);
    let all = wrong();
    assert!(all.len() >= 40, "{}", all.len());
    let judge = |wrong: &Wrong| {
        let name = wrong.name.as_deref().unwrap_or("a");
        let object = definitions.object(&wrong.kind, name, &wrong.spec);
        match ask(turn.cluster, &object) {
            Ok(()) => Some(format!("taken: {object}")),
            Err(said) if says(&said, &wrong.said) => None,
            Err(said) => Some(format!("`{}` is not said: {said}", wrong.said)),
        }
    };
    // kubectl is slow to start.
    let failures: Vec<String> = thread::scope(|scope| {
        let judges = all.chunks(all.len().div_ceil(4));
        let judges = judges
            .map(|part| scope.spawn(move || part.iter().filter_map(judge).collect::<Vec<_>>()));
        let judges: Vec<_> = judges.collect();
        judges.into_iter().flat_map(|judge| judge.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), all.len(), failures.join("\n"));
}

/// The YAML documents of the page about objects.
fn documented() -> Vec<Value> {
    let page = fs::read_to_string(helm::chart().join("../../../docs/objects.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let documents = blocks.flat_map(|block| block.split("---\n"));
    documents
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")))
        .collect()
}

#[test]
fn the_api_server_takes_every_object_of_the_documentation() {
    let turn = shared::turn();
    let definitions = Definitions::install(&turn);
    let mut kinds = Vec::new();
    for mut object in documented() {
        if object["apiVersion"] != "sheath.dev/v1alpha1" {
            continue;
        }
        // Those that are named there may be somebody else's here.
        if object["metadata"]["namespace"].is_string() {
            object["metadata"]["namespace"] = definitions.namespace.clone().into();
        }
        ask(turn.cluster, &object).unwrap_or_else(|said| panic!("{said}: {object}"));
        kinds.push(object["kind"].as_str().unwrap().to_owned());
    }
    for (kind, _) in KINDS {
        assert!(kinds.iter().any(|found| found == kind), "the page has no {kind}");
    }
}

/// A configuration of a host, as objects.
#[test]
fn the_api_server_takes_what_a_configuration_is_converted_to() {
    let turn = shared::turn();
    let definitions = Definitions::install(&turn);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sheath.yaml");
    fs::write(&file, CONFIGURATION).unwrap();
    let mut convert = Command::new(binaries::sheath());
    convert.args(["policy", "convert", "--namespace", &definitions.namespace]).arg(&file);
    let output = convert.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let objects = String::from_utf8(output.stdout).unwrap();
    let create = ["create", "--dry-run=server", "--output=name", "--filename=-"];
    let taken = turn.cluster.kubectl().feed(create, &objects).unwrap();
    let count = objects.lines().filter(|line| line.starts_with("kind: ")).count();
    assert!(count >= 5 && taken.lines().count() == count, "{taken}\n{objects}");
}

const CONFIGURATION: &str = "
trustDomain: example.org
node: node-a
identity: { ca: { dir: /var/lib/sheath/ca } }
trustDomains:
  - { name: partner.example.com, bundle: /etc/partner.pem }
tlsContexts:
  - { name: billing, files: { certificate: /etc/billing.crt, key: /etc/billing.key } }
workloads:
  - name: web
    select: { systemdUnit: web.service }
    spiffeId: spiffe://example.org/web
    inbound: { mode: strict, ports: [8080], allow: [spiffe://example.org/front] }
    outbound: { mode: require, bypass: [\"10.0.0.1/32:53\"] }
externalPeers:
  - name: billing
    match: [\"billing.example.com:8443\"]
    certificate: billing
    trust: { bundle: /etc/billing-ca.pem }
    expect: { dnsNames: [billing.example.com] }
";

#[test]
fn kinds_are_explained_and_listed() {
    let turn = shared::turn();
    let definitions = Definitions::install(&turn);
    let kubectl = turn.cluster.kubectl();
    for (what, words) in [
        ("workloadpolicies.spec.inbound.mode", "mutual TLS or a reset"),
        ("workloadpolicies.spec.inbound.portModes", "less than the label asks for"),
        ("authorizationpolicies.spec", "at every port"),
        ("authorizationpolicies.spec.rules.from.spiffeIds", "for every one of a trust domain"),
        ("externalpeers.spec.exportTo", "decide whom pods of others believe"),
        ("tlscontexts.spec.secret", "kubernetes.io/tls"),
        ("trustdomains.spec.identityTemplate", "{serviceAccount}"),
    ] {
        let explained = wait::wait_for(what, LIMIT, || {
            let text = kubectl.run(["explain", what]).ok()?;
            // It breaks lines where it likes.
            Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
        });
        assert!(explained.contains(words), "{what}: {explained}");
    }
    let spec = json!({"inbound": {"mode": "strict"}, "outbound": {"mode": "prefer"}});
    let policy = definitions.object("WorkloadPolicy", "web", &spec);
    kubectl.apply(&policy.to_string()).unwrap();
    let space = format!("--namespace={}", definitions.namespace);
    let listed = kubectl.run(["get", "wlp", &space]).unwrap();
    for word in ["INBOUND", "OUTBOUND", "ACCEPTED", "strict", "prefer"] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    // What is true of an object is said by who may write its status, and changes nothing else.
    let now = "2026-01-01T00:00:00Z";
    let status = json!({"status": {
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Valid", "message": "It makes sense.", "lastTransitionTime": now}],
        "pods": {"selected": 3, "protected": 2, "pending": 1, "held": 0, "unsupported": 0},
    }});
    let patch = format!("--patch={status}");
    kubectl
        .run(["patch", "wlp", "web", &space, "--subresource=status", "--type=merge", &patch])
        .unwrap();
    let listed = kubectl.run(["get", "wlp", &space]).unwrap();
    assert!(listed.contains("True") && listed.contains('3'), "{listed}");
}

#[test]
fn the_trust_domain_of_pods_cannot_be_changed() {
    let turn = shared::turn();
    let definitions = Definitions::install(&turn);
    let kubectl = turn.cluster.kubectl();
    let domain = |name: &str, ttl: &str| {
        let spec = json!({"trustDomain": name, "svidTtl": ttl});
        definitions.object("TrustDomain", "default", &spec).to_string()
    };
    kubectl.apply(&domain("example.org", "24h")).unwrap();
    kubectl.apply(&domain("example.org", "1h")).unwrap();
    let said = kubectl.apply(&domain("example.com", "1h")).unwrap_err().to_string();
    assert!(said.contains("trustDomain cannot be changed"), "{said}");
}
