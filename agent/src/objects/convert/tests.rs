use std::path::Path;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::*;

/// A file of every key that objects have an equivalent of, and of some that they have not.
const FILE: &str = r#"
trustDomain: example.org
node: node-a
log: { level: debug }
identity: { ca: { dir: /var/lib/sheath/ca, svidTtl: 12h } }
trustDomains:
  - { name: partner.example.com, bundle: /etc/partner.pem, crl: { files: [/etc/partner.crl], unknown: allow } }
tlsContexts:
  - { name: billing, files: { certificate: /etc/billing.crt, key: /etc/billing.key } }
workloads:
  - name: web
    select: { systemdUnit: web.service }
    spiffeId: spiffe://example.org/web
    inbound:
      mode: strict
      ports: [8080]
      publishedPorts: ["80:8080"]
      allow: [spiffe://example.org/front, spiffe://partner.example.com/front]
      allowPins: [{ spkiSha256: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }]
      tls:
        certificate: billing
        trust: { bundle: /etc/clients.pem, crl: { files: [/etc/clients.crl] } }
        expect: { dnsNames: [client.example.com] }
    outbound: { mode: require, bypass: ["10.0.0.1/32:53"] }
    existing: reset
  - name: batch
    select: { cgroup: /batch }
    spiffeId: spiffe://example.org/batch
    outbound: { mode: require }
peers:
  - { match: ["10.0.2.0/24"], spiffeIds: [spiffe://example.org/db] }
externalPeers:
  - name: billing
    match: ["billing.example.com:8443"]
    certificate: billing
    trust: { bundle: /etc/billing-ca.pem }
    expect: { dnsNames: [billing.example.com] }
    connectTimeout: 5s
  - name: web
    match: ["www.example.com:443"]
    trust: { system: true }
    expect: { uris: ["urn:example:www"] }
    minVersion: "1.2"
"#;

fn file(text: &str) -> Value {
    match Input::parse(text).unwrap() {
        Input::File(file) => file,
        Input::Objects(objects) => panic!("{objects:?}"),
    }
}

/// The keys that objects are made of.
fn convertible(file: &Value) -> Value {
    let keys =
        ["trustDomain", "identity", "trustDomains", "tlsContexts", "workloads", "externalPeers"];
    let mut file = file.clone();
    file.as_object_mut().unwrap().retain(|key, _| keys.contains(&key.as_str()));
    file
}

/// From a file to objects, to text, and back.
fn back(from: &Value) -> Value {
    let objects = to_objects(from, "shop").unwrap();
    let Input::Objects(read) = Input::parse(&objects.yaml().unwrap()).unwrap() else { panic!() };
    assert_eq!(read, objects.values().cloned().collect::<Vec<_>>());
    let converted = to_file(&read).unwrap();
    file(&converted.yaml().unwrap())
}

#[test]
fn the_way_back_leads_to_the_same_file() {
    let from = file(FILE);
    crate::config::Config::parse(FILE, Path::new("sheath.yaml")).unwrap();
    assert_eq!(back(&from), convertible(&from));
}

#[test]
fn objects_are_what_the_file_says() {
    let objects = to_objects(&file(FILE), "shop").unwrap();
    let find = |kind: &str, name: &str| {
        let is_meant =
            |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        objects.values().find(is_meant).unwrap_or_else(|| panic!("{kind} {name}")).clone()
    };
    let policy = find("WorkloadPolicy", "web");
    assert_eq!(policy["spec"]["inbound"]["mode"], "strict");
    assert_eq!(
        policy["spec"]["inbound"]["tls"]["trust"],
        json!({"tlsContext": "web-client-roots"})
    );
    assert_eq!(
        policy["spec"]["selector"],
        json!({"matchLabels": {"app.kubernetes.io/name": "web"}})
    );
    let allow = find("AuthorizationPolicy", "web");
    assert_eq!(
        (&allow["spec"]["action"], allow["spec"]["rules"].as_array().unwrap().len()),
        (&json!("Allow"), 2)
    );
    assert_eq!(find("TlsContext", "billing-roots")["spec"], json!({"secret": "billing-roots"}));
    assert_eq!(find("TrustDomain", "default")["metadata"]["namespace"], Value::Null);
    let notes: Vec<_> = objects.notes().collect();
    for said in [
        "`select` names cgroups",
        "`ca.crt` is /etc/billing-ca.pem",
        "`tls.key` is /etc/billing.key",
        "left in the file: `log`, `node`",
        "`peers`: the controller knows",
        "needs no `inbound.publishedPorts`",
        "the identity of its service account",
    ] {
        assert!(notes.iter().any(|note| note.contains(said)), "{said}: {notes:#?}");
    }
}

#[test]
fn what_would_be_missed_is_an_error() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut file = file(FILE);
        change(&mut file);
        to_objects(&file, "shop").unwrap_err().to_string()
    };
    let said = with(&|file| {
        file["workloads"][0]["inbound"]["allowPins"] = json!([{"certificate": "/a.pem"}])
    });
    assert!(
        said.contains("workloads[web]: the pin of the file /a.pem has no equivalent"),
        "{said}"
    );
    let said = with(&|file| {
        file["externalPeers"][1]["trust"] = json!({"system": true, "crl": {"files": ["/a"]}});
    });
    assert!(said.contains("externalPeers[web].trust.crl: CRLs beside the system's"), "{said}");
    let said = with(&|file| {
        let inbound = file["workloads"][0]["inbound"].as_object_mut().unwrap();
        inbound.retain(|key, _| key != "allow" && key != "allowPins");
    });
    assert!(said.contains("no agent may call it"), "{said}");
    let said = with(&|file| file["workloads"][1]["outbound"]["mode"] = json!("prefer"));
    assert!(said.contains("peers: agents outside of the cluster have no equivalent"), "{said}");
    let said = with(&|file| file["trustDomains"][0]["name"] = json!("example.org"));
    assert!(said.contains("trustDomains[example.org]: CRLs without a bundle"), "{said}");
    let said = with(&|file| file["tlsContexts"][0]["name"] = json!("billing-roots"));
    assert!(said.contains("another TlsContext would also be called `billing-roots`"), "{said}");
    let said = with(&|file| file["workloads"][0]["name"] = json!("Web Server"));
    assert!(said.contains("workloads[Web Server]: no object can have this name"), "{said}");
}

fn object(kind: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "sheath.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": if kind == "TrustDomain" { "default" } else { "web" }, "namespace": "shop"},
        "spec": spec,
    })
}

#[test]
fn what_the_file_cannot_say_is_an_error() {
    let strict = || object("WorkloadPolicy", json!({"inbound": {"mode": "strict"}}));
    let allow = |from: Value| {
        object("AuthorizationPolicy", json!({"action": "Allow", "rules": [{"from": from}]}))
    };
    let ids = || allow(json!({"spiffeIds": ["spiffe://example.org/a"]}));
    for (objects, said) in [
        (vec![strict()], "WorkloadPolicy shop/web: every identity of the trust domain may call"),
        (
            vec![strict(), allow(json!({"namespaces": ["shop"]}))],
            "a rule of anything but spiffeIds alone",
        ),
        (
            vec![strict(), allow(json!({"spiffeIds": ["spiffe://example.org/*"]}))],
            "all of a trust domain",
        ),
        (vec![ids()], "has no equivalent without a WorkloadPolicy"),
        (
            vec![object(
                "AuthorizationPolicy",
                json!({"action": "Deny", "rules": [{"from": {"namespaces": ["a"]}}]}),
            )],
            "a Deny has no equivalent",
        ),
        (
            vec![object(
                "WorkloadPolicy",
                json!({"inbound": {"mode": "strict", "portModes": [{"port": 1, "mode": "disabled"}]}}),
            )],
            "inbound.portModes has no equivalent",
        ),
        (
            vec![object("WorkloadPolicy", json!({"existing": "keep"})), ids()],
            "says no inbound.mode",
        ),
        (
            vec![object(
                "ExternalPeer",
                json!({
                    "match": ["a.example.com"], "selector": {"matchLabels": {"a": "b"}},
                    "trust": {"system": true}, "expect": {"dnsNames": ["a.example.com"]},
                }),
            )],
            "selector has no equivalent",
        ),
        (
            vec![object(
                "TrustDomain",
                json!({
                    "trustDomain": "example.org",
                    "identityTemplate": "spiffe://{trustDomain}/{namespace}/{serviceAccount}",
                }),
            )],
            "identityTemplate has no equivalent",
        ),
        (vec![object("WorkloadPolicy", json!({}))], "spec: says nothing"),
        (vec![json!({"kind": "Pod"})], "Pod: is none of Sheath's kinds"),
    ] {
        let error = to_file(&objects).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
    let converted = to_file(&[strict(), ids()]).unwrap();
    let notes: Vec<_> = converted.notes().collect();
    assert!(notes.iter().any(|note| note.contains("workloads[web].select")), "{notes:?}");
    // What is not yet complete is no configuration: nothing is protected less than it says.
    assert!(crate::config::Config::parse(&converted.yaml().unwrap(), Path::new("a")).is_err());
}

#[test]
fn a_list_of_objects_is_its_objects() {
    let list =
        json!({"kind": "List", "items": [object("WorkloadPolicy", json!({"existing": "keep"}))]});
    let Input::Objects(objects) = Input::parse(&list.to_string()).unwrap() else { panic!() };
    assert_eq!(objects[0]["kind"], "WorkloadPolicy");
    assert!(Input::parse("").is_err() && Input::parse("a: [").is_err());
}

fn workloads() -> impl Strategy<Value = Value> {
    let ids = ["spiffe://example.org/a", "spiffe://example.org/b", "spiffe://example.com/c"];
    let pin = json!({"certificateSha256": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"});
    let inbound = (
        select(vec!["strict", "permissive", "disabled"]),
        option::of(prop::collection::btree_set(1..100_u16, 1..4)),
        prop::sample::subsequence(ids.to_vec(), 1..3),
        any::<bool>(),
        any::<bool>(),
    );
    let inbound = inbound.prop_map(move |(mode, ports, allow, is_pinned, has_namespace)| {
        let mut inbound = json!({"mode": mode, "allow": allow});
        if let Some(ports) = ports {
            inbound["ports"] = json!(ports);
        }
        if is_pinned {
            inbound["allowPins"] = json!([pin]);
        }
        if has_namespace {
            inbound["namespace"] = json!("own");
        }
        inbound
    });
    let outbound = (select(vec!["require", "prefer"]), option::of(Just(json!(["10.0.0.0/8"]))));
    let outbound = outbound.prop_map(|(mode, bypass)| match bypass {
        Some(bypass) => json!({"mode": mode, "bypass": bypass}),
        None => json!({"mode": mode}),
    });
    let rest = (select(vec!["keep", "reset"]), any::<bool>());
    (option::of(inbound), option::of(outbound), rest).prop_map(
        |(inbound, outbound, (existing, is_named))| {
            let mut workload = json!({"select": {"cgroup": "/x"}, "existing": existing});
            if let Some(inbound) = inbound {
                workload["inbound"] = inbound;
            }
            if let Some(outbound) = outbound {
                workload["outbound"] = outbound;
            }
            if is_named {
                workload["spiffeId"] = json!("spiffe://example.org/x");
            }
            workload
        },
    )
}

fn peers() -> impl Strategy<Value = Value> {
    let trust = select(vec![
        json!({"system": true}),
        json!({"bundle": "/a.pem"}),
        json!({"bundle": "/a.pem", "crl": {"files": ["/a.crl", "/b.crl"], "expired": "allow"}}),
    ]);
    let certificate = option::of(select(vec!["svid", "none", "own"]));
    let timeout = option::of(select(vec!["5s", "500ms", "2m", "1h"]));
    (trust, certificate, timeout).prop_map(|(trust, certificate, timeout)| {
        let mut peer = json!({"match": ["a.example.com"], "trust": trust, "expect": {"dnsNames": ["a.example.com"]}});
        for (key, value) in [("certificate", certificate), ("connectTimeout", timeout)] {
            if let Some(value) = value {
                peer[key] = json!(value);
            }
        }
        peer
    })
}

/// Gives each its name.
fn named(list: Vec<Value>, prefix: &str) -> Value {
    let name = |(index, mut entry): (usize, Value)| {
        entry["name"] = json!(format!("{prefix}{index}"));
        entry
    };
    list.into_iter().enumerate().map(name).collect()
}

proptest! {
    #[test]
    fn there_and_back(workloads in vec(workloads(), 1..4), peers in vec(peers(), 1..4)) {
        let from = json!({
            "trustDomain": "example.org",
            "workloads": named(workloads, "w"),
            "externalPeers": named(peers, "p"),
            "tlsContexts": [{"name": "own", "files": {"certificate": "/own.crt", "key": "/own.key"}}],
        });
        prop_assert_eq!(back(&from), from);
    }

    #[test]
    fn nothing_makes_it_panic(text in "[a-z:{}\\[\\],\"\n -]{0,80}") {
        match Input::parse(&text) {
            Ok(Input::File(file)) => drop(to_objects(&file, "a")),
            Ok(Input::Objects(objects)) => drop(to_file(&objects)),
            Err(_) => {}
        }
    }
}
