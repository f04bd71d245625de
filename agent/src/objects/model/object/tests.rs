use super::*;
use serde::Deserialize;
use serde_json::json;

/// An object that makes no sense, as `wrong.yaml` has them.
#[derive(Deserialize)]
struct Wrong {
    kind: String,
    #[serde(default)]
    name: Option<String>,
    spec: Value,
    field: String,
}

fn wrong() -> Vec<Wrong> {
    serde_saphyr::from_str(include_str!("../../wrong.yaml")).unwrap()
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "sheath.dev/v1alpha1",
        "kind": kind,
        "metadata": { "name": name, "namespace": "shop" },
        "spec": spec,
    })
}

#[test]
fn what_makes_no_sense_is_refused_with_its_field() {
    let all = wrong();
    assert!(all.len() >= 40, "{}", all.len());
    for wrong in all {
        let kind = Kind::named(&wrong.kind).unwrap();
        let name = wrong.name.as_deref().unwrap_or("a");
        let error = Object::read(kind, &object(&wrong.kind, name, &wrong.spec)).unwrap_err();
        assert_eq!(error.wrong.field(), wrong.field, "{error}: {}", wrong.spec);
        assert!(error.to_string().starts_with(&format!("{kind} shop/{name}: ")), "{error}");
    }
}

#[test]
fn what_makes_sense_is_read() {
    let read = |kind: &str, name: &str, spec: Value| {
        let kind = Kind::named(kind).unwrap();
        let (found, object) = Object::read(kind, &object(kind.name(), name, &spec)).unwrap();
        assert_eq!((found.to_string(), object.kind()), (format!("shop/{name}"), kind));
        object
    };
    let policy = read(
        "WorkloadPolicy",
        "web",
        json!({"inbound": {"mode": "strict", "portModes": [{"port": 9090, "mode": "disabled"}]}}),
    );
    let Object::WorkloadPolicy(policy) = policy else { panic!("{policy:?}") };
    let inbound = policy.inbound.unwrap();
    assert_eq!(inbound.port_modes.len(), 1);
    let peer = read(
        "ExternalPeer",
        "billing",
        json!({
            "match": ["billing.example.com:8443", "10.0.0.0/8", "[fd00::/64]:443"],
            "certificate": "billing-client",
            "trust": {"tlsContext": "billing-ca"},
            "expect": {"dnsNames": ["Billing.example.com"]},
            "connectTimeout": "5s",
        }),
    );
    let Object::ExternalPeer(peer) = peer else { panic!("{peer:?}") };
    assert_eq!(peer.places.len(), 3);
    let contexts: Vec<_> = peer.tls.contexts().collect();
    assert_eq!(contexts, ["billing-client", "billing-ca"]);
    let domain = read("TrustDomain", "default", json!({"trustDomain": "example.org"}));
    let Object::TrustDomain(domain) = domain else { panic!("{domain:?}") };
    assert_eq!(domain.svid_ttl.as_secs(), 24 * 60 * 60);
}

#[test]
fn the_objects_of_the_documentation_are_read() {
    let page = include_str!("../../../../../docs/objects.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let documents: Vec<Value> =
        blocks.flat_map(|block| serde_saphyr::from_multiple::<Value>(block).unwrap()).collect();
    let ours = documents.iter().filter(|object| object["apiVersion"] == "sheath.dev/v1alpha1");
    let read = |object: &Value| {
        let kind = Kind::named(object["kind"].as_str().unwrap()).unwrap();
        Object::read(kind, object).unwrap_or_else(|error| panic!("{error}"));
        kind
    };
    let kinds: std::collections::BTreeSet<Kind> = ours.map(read).collect();
    assert_eq!(kinds.len(), Kind::ALL.len());
}

#[test]
fn a_field_of_another_type_is_named() {
    let spec = json!({"inbound": {"mode": "strict", "ports": ["http"]}});
    let error = Object::read(Kind::WorkloadPolicy, &object("WorkloadPolicy", "a", &spec));
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("WorkloadPolicy shop/a: spec.inbound.ports[0]: invalid type"),
        "{error}"
    );
}

#[test]
fn a_message_is_one_line_whatever_somebody_has_written() {
    let spec = json!({"outbound": {"mode": "require", "bypass": ["a\n\u{1b}[31mb"]}});
    let error = Object::read(Kind::WorkloadPolicy, &object("WorkloadPolicy", "a", &spec));
    let error = error.unwrap_err().to_string();
    assert!(!error.contains(char::is_control), "{error:?}");
}
