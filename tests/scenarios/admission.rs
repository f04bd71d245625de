//! What a real API server refuses by the chart's policies, and what it lets through.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sheath_tests::cluster::scene::LIMIT;
use sheath_tests::cluster::turn::Turn;
use sheath_tests::cluster::{Cluster, helm, shared};
use sheath_tests::{binaries, names, wait};

const LABEL: &str = "sheath.dev/protect";

/// The chart's policies in the cluster, and nothing else of it.
struct Policies<'t> {
    text: String,
    /// They are in the way of others.
    turn: &'t Turn<'t>,
}

impl<'t> Policies<'t> {
    fn new(turn: &'t Turn<'t>) -> Self {
        let mut helm = Command::new(binaries::cluster_program("helm"));
        helm.args(["template", "sheath", "--namespace", "sheath-system"]).arg(helm::chart());
        helm.args(["--show-only", "templates/admission.yaml"]).stdin(Stdio::null());
        let output = helm.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        Self { text, turn }
    }

    /// A namespace with this label, that is ready for pods.
    fn namespace(&self, label: Option<&str>) -> String {
        let name = names::unique();
        self.turn.own(&name);
        create(self.turn.cluster, &namespace(&name, label), false).unwrap();
        let space = format!("--namespace={name}");
        wait::wait_until("a service account", LIMIT, || {
            self.turn.cluster.kubectl().get(["serviceaccount", "default", &*space]).is_ok()
        });
        name
    }

    /// Puts them in force, and waits until they are.
    fn apply(&self) {
        self.turn.cluster.kubectl().apply(&self.text).unwrap();
        let probe = namespace(&names::unique(), Some("nonsense"));
        wait::wait_until("the policies are in force", LIMIT, || {
            create(self.turn.cluster, &probe, true).is_err()
        });
        for name in ["sheath-namespaces", "sheath-pods"] {
            let policy = wait::wait_for("a policy that was looked at", LIMIT, || {
                let policy =
                    self.turn.cluster.kubectl().get(["validatingadmissionpolicy", name]).ok()?;
                policy["status"]["typeChecking"].is_object().then_some(policy)
            });
            let warnings = &policy["status"]["typeChecking"]["expressionWarnings"];
            assert!(warnings.as_array().is_none_or(Vec::is_empty), "{warnings:#}");
        }
    }
}

impl Drop for Policies<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--ignore-not-found", "--filename=-"];
        let _ = self.turn.cluster.kubectl().feed(delete, &self.text);
    }
}

/// Creates an object, or only asks whether it could be created. What is said, if it could not.
fn create(cluster: &Cluster, object: &Value, is_dry: bool) -> Result<(), String> {
    let dry = is_dry.then_some("--dry-run=server");
    let arguments = ["create", "--filename=-"].into_iter().chain(dry);
    let answer = cluster.kubectl().feed(arguments, &object.to_string());
    answer.map(drop).map_err(|error| format!("{error:#}"))
}

fn namespace(name: &str, label: Option<&str>) -> Value {
    let labels = label.map(|label| json!({LABEL: label}));
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn pod(namespace: &str, label: Option<&str>, change: impl FnOnce(&mut Value)) -> Value {
    let labels = label.map(|label| json!({LABEL: label}));
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": "it", "labels": labels},
        "spec": {"containers": [{"name": "main", "image": "it"}]},
    });
    change(&mut pod);
    pod
}

#[test]
fn what_makes_no_sense_is_refused_where_it_is_written_and_everything_else_is_not() {
    let turn = shared::turn();
    let policies = Policies::new(&turn);
    let kubectl = turn.cluster.kubectl();
    let bad = policies.namespace(Some("requrie"));
    let [plain, prefer, require] =
        [None, Some("prefer"), Some("require")].map(|label| policies.namespace(label));
    policies.apply();
    let asked = |object: &Value| create(turn.cluster, object, true);
    let refused = |object: &Value, words: &str| {
        let said = asked(object).expect_err(words);
        assert!(said.contains(words), "{words}: {said}");
    };
    let at = |namespace: &str, label: &str| pod(namespace, Some(label), |_| {});

    let some = names::unique();
    refused(&namespace(&some, Some("requrie")), "is `requrie`; write `require`");
    refused(&namespace(&some, Some("")), "write `require`");
    for label in [None, Some("false"), Some("prefer"), Some("require")] {
        asked(&namespace(&some, label)).unwrap();
    }
    let label = |name: &str, label: &str| {
        let dry = "--dry-run=server";
        kubectl.run(["label", "namespace", name, label, "--overwrite", dry])
    };
    let said = label("kube-system", "sheath.dev/protect=require").unwrap_err().to_string();
    assert!(said.contains("pods of kube-system cannot be protected"), "{said}");
    label("kube-system", "other=label").unwrap();
    label(&require, "sheath.dev/protect-").unwrap();
    // What was there before is nobody's fault now.
    label(&bad, "other=label").unwrap();
    assert!(label(&bad, "sheath.dev/protect=nonsense").is_err());

    for (space, wish) in [(&plain, "require"), (&prefer, "require"), (&require, "require")] {
        asked(&at(space, wish)).unwrap();
        asked(&pod(space, None, |_| {})).unwrap();
    }
    asked(&at(&plain, "false")).unwrap();
    refused(&at(&plain, "on"), "is `on`; write `require`");
    for (space, wish) in [(&require, "prefer"), (&require, "false"), (&prefer, "false")] {
        refused(&at(space, wish), "can only ask for more");
    }
    refused(&at("kube-system", "require"), "pods of kube-system cannot be protected");

    let http = || json!({"httpGet": {"port": 80, "host": "10.0.0.1"}});
    /// Puts a probe or hook into a pod.
    type Set = fn(&mut Value, Value);
    let handlers: [(&str, Set); 6] = [
        ("readinessProbe", |pod, probe| pod["spec"]["containers"][0]["readinessProbe"] = probe),
        ("livenessProbe", |pod, probe| pod["spec"]["containers"][0]["livenessProbe"] = probe),
        ("startupProbe", |pod, probe| pod["spec"]["containers"][0]["startupProbe"] = probe),
        ("postStart", |pod, hook| {
            pod["spec"]["containers"][0]["lifecycle"] = json!({"postStart": hook});
        }),
        ("preStop", |pod, hook| {
            pod["spec"]["containers"][0]["lifecycle"] = json!({"preStop": hook});
        }),
        ("a sidecar's", |pod, probe| {
            let mut sidecar = json!({"name": "side", "image": "it", "restartPolicy": "Always"});
            sidecar["readinessProbe"] = probe;
            pod["spec"]["initContainers"] = json!([sidecar]);
        }),
    ];
    for (what, set) in handlers {
        let with = |space: &str, wish, handler| pod(space, wish, |pod| set(pod, handler));
        refused(&with(&require, None, http()), "has a `host` of its own");
        refused(&with(&prefer, None, http()), "has a `host` of its own");
        refused(&with(&plain, Some("prefer"), http()), "has a `host` of its own");
        let socket = json!({"tcpSocket": {"port": 80, "host": "10.0.0.1"}});
        refused(&with(&require, None, socket), "has a `host` of its own");
        asked(&with(&plain, None, http())).unwrap_or_else(|said| panic!("{what}: {said}"));
        let own = json!({"httpGet": {"port": 80}});
        asked(&with(&require, None, own)).unwrap_or_else(|said| panic!("{what}: {said}"));
    }
}
