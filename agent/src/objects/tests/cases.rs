//! Single cases, each as somebody would write it.

use serde_json::{Value, json};

use super::*;
use crate::desired::Place;

/// The objects, as they are written.
fn objects(list: &[(&str, &str, Value)]) -> Objects {
    let mut objects = Objects::default();
    for (kind, name, spec) in list {
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        let object = json!({ "metadata": { "namespace": namespace, "name": name }, "spec": spec });
        let (name, object) = Object::read(Kind::named(kind).unwrap(), &object).unwrap();
        objects.put(name, object);
    }
    objects
}

/// What applies to a pod of `shop` with `app=web`.
fn effective(objects: &Objects, label: Protection) -> Effective {
    let cluster = cluster();
    let labels = [("app".to_owned(), "web".to_owned())].into();
    Effective::of(
        objects,
        &Subject { namespace: "shop", labels: &labels, label, cluster: &cluster },
    )
}

#[test]
fn without_objects_the_label_is_all_there_is() {
    for (label, inbound, outbound) in [
        (Protection::False, InboundMode::Disabled, OutboundMode::Disabled),
        (Protection::Prefer, InboundMode::Permissive, OutboundMode::Prefer),
        (Protection::Require, InboundMode::Strict, OutboundMode::Require),
    ] {
        let effective = effective(&Objects::default(), label);
        assert_eq!((effective.inbound.at(80), effective.outbound.mode), (inbound, outbound));
        assert!(effective.inbound.ports.is_empty() && effective.conflicts.is_empty());
    }
}

#[test]
fn a_policy_with_a_selector_speaks_for_the_sections_that_it_has() {
    let objects = objects(&[
        (
            "WorkloadPolicy",
            "shop/all",
            json!({"inbound": {"mode": "strict"}, "outbound": {"mode": "require", "bypass": ["10.0.0.0/8"]}}),
        ),
        (
            "WorkloadPolicy",
            "shop/web",
            json!({"selector": {"matchLabels": {"app": "web"}}, "inbound": {"mode": "permissive"}}),
        ),
        ("WorkloadPolicy", "other/all", json!({"existing": "reset"})),
    ]);
    let effective = effective(&objects, Protection::False);
    assert_eq!(effective.inbound.at(80), InboundMode::Permissive);
    assert_eq!(effective.outbound.mode, OutboundMode::Require);
    assert_eq!(effective.outbound.bypass.len(), 1);
    assert_eq!(effective.existing, crate::desired::Existing::Keep);
    assert!(effective.conflicts.is_empty());
}

#[test]
fn policies_of_the_same_rank_that_differ_are_in_conflict_and_the_strictest_counts() {
    let objects = objects(&[
        ("WorkloadPolicy", "shop/a", json!({"inbound": {"mode": "strict", "ports": [80]}})),
        ("WorkloadPolicy", "shop/b", json!({"inbound": {"mode": "permissive"}})),
    ]);
    let effective = effective(&objects, Protection::False);
    assert_eq!(
        [80, 81].map(|port| effective.inbound.at(port)),
        [InboundMode::Strict, InboundMode::Permissive]
    );
    let names: Vec<_> = effective.conflicts.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["shop/a", "shop/b"]);
}

#[test]
fn an_exception_holds_below_the_label_and_a_mode_does_not() {
    let objects = objects(&[(
        "WorkloadPolicy",
        "shop/web",
        json!({"inbound": {"mode": "permissive", "portModes": [{"port": 9090, "mode": "disabled"}]}}),
    )]);
    let effective = effective(&objects, Protection::Require);
    assert_eq!(
        [80, 9090].map(|port| effective.inbound.at(port)),
        [InboundMode::Strict, InboundMode::Disabled]
    );
}

#[test]
fn whoever_may_be_refused_is_looked_at() {
    let rules = json!([{"from": {"serviceAccounts": [{"name": "web"}]}}]);
    for (action, ports, expected) in [
        ("Allow", json!([80]), [InboundMode::Permissive; 2]),
        ("Deny", json!([80]), [InboundMode::Permissive, InboundMode::Disabled]),
        ("Audit", json!([80]), [InboundMode::Disabled; 2]),
    ] {
        let spec = json!({"action": action, "ports": ports, "rules": rules});
        let objects = objects(&[("AuthorizationPolicy", "shop/web", spec)]);
        let inbound = effective(&objects, Protection::False).inbound;
        assert_eq!([80, 81].map(|port| inbound.at(port)), expected, "{action}");
    }
}

#[test]
fn a_deny_by_identity_refuses_who_has_proved_none() {
    let rules = json!([{"from": {"spiffeIds": ["spiffe://example.org/bad"]}}]);
    let spec = json!({"action": "Deny", "rules": rules});
    let objects = objects(&[("AuthorizationPolicy", "shop/web", spec)]);
    let authorization = effective(&objects, Protection::Prefer).authorization;
    let plaintext = Caller { proved: None, address: "10.0.0.1".parse().unwrap() };
    assert_eq!(
        authorization.decide(&plaintext, 80),
        Ruling::Refused(Refusal::Denied(ObjectName::new("shop", "web")))
    );
}

const INBOUND_TLS: &str = r#"{"inbound": {"mode": "strict", "tls": {
    "certificate": "edge", "trust": {"tlsContext": "edge"}, "expect": {"dnsNames": ["client.example.com"]}
}}}"#;

#[test]
fn what_refers_to_nothing_lets_nobody_in() {
    let policy: Value = serde_json::from_str(INBOUND_TLS).unwrap();
    let mut all = objects(&[("WorkloadPolicy", "shop/web", policy)]);
    let clients = |all: &Objects| effective(all, Protection::False).inbound.clients;
    let edge = ObjectName::new("shop", "edge");
    assert_eq!(clients(&all), Clients::Unresolved(Unresolved::Missing(edge.clone())));
    let wrong = Wrong::new("makes no sense");
    let malformed = Malformed { kind: Kind::TlsContext, name: edge.clone(), wrong };
    all.put_malformed(&malformed);
    assert_eq!(clients(&all), Clients::Unresolved(Unresolved::Unread(edge.clone())));
    let context =
        json!({"metadata": {"namespace": "shop", "name": "edge"}, "spec": {"secret": "edge-tls"}});
    let (name, context) = Object::read(Kind::TlsContext, &context).unwrap();
    all.put(name, context);
    assert!(matches!(clients(&all), Clients::Tls(_)));
    all.remove(Kind::TlsContext, &edge);
    assert_eq!(clients(&all), Clients::Unresolved(Unresolved::Missing(edge)));
}

fn peer(more: Value) -> Value {
    let mut spec = json!({
        "match": ["billing.example.com:443"],
        "trust": {"system": true},
        "expect": {"dnsNames": ["billing.example.com"]},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

#[test]
fn an_external_peer_is_for_its_namespace_unless_sheaths_own_exports_it() {
    let at = |list: &[(&str, &str, Value)]| {
        let place = Place::try_from("billing.example.com:443".to_owned()).unwrap().to_string();
        effective(&objects(list), Protection::False).external_peers.places.remove(&place)
    };
    let found = |name: &str| {
        let (namespace, name) = name.split_once('/').unwrap();
        Some(AtPlace::Peer(ObjectName::new(namespace, name)))
    };
    let everybody = || peer(json!({"exportTo": ["*"]}));
    let own = ("ExternalPeer", "shop/billing", peer(json!({})));
    let exported = ("ExternalPeer", "sheath-system/billing", everybody());
    let selected =
        ("ExternalPeer", "shop/web", peer(json!({"selector": {"matchLabels": {"app": "web"}}})));
    let others =
        ("ExternalPeer", "shop/db", peer(json!({"selector": {"matchLabels": {"app": "db"}}})));
    let foreign = ("ExternalPeer", "evil/billing", everybody());
    assert_eq!(at(&[foreign.clone(), others.clone()]), None);
    assert_eq!(at(&[exported.clone(), foreign]), found("sheath-system/billing"));
    assert_eq!(at(&[exported.clone(), own.clone()]), found("shop/billing"));
    assert_eq!(at(&[exported, own.clone(), selected, others]), found("shop/web"));
    let twice = at(&[own, ("ExternalPeer", "shop/again", peer(json!({})))]);
    assert!(matches!(twice, Some(AtPlace::Ambiguous(names)) if names.len() == 2));
    let missing = ("ExternalPeer", "shop/billing", peer(json!({"certificate": "nowhere"})));
    assert!(matches!(at(&[missing]), Some(AtPlace::Unresolved(..))));
    let unknown = peer(json!({
        "trust": {"trustDomain": "example.com"},
        "expect": {"spiffeIds": ["spiffe://example.com/billing"]},
    }));
    let unknown = ("ExternalPeer", "shop/billing", unknown);
    assert!(matches!(at(std::slice::from_ref(&unknown)), Some(AtPlace::Unresolved(..))));
    let federated = json!({
        "trustDomain": "example.org",
        "trustDomains": [{"name": "example.com", "configMap": "partner"}],
    });
    let domain = ("TrustDomain", "default", federated);
    assert_eq!(at(&[unknown, domain]), found("shop/billing"));
}

#[test]
fn an_external_peer_that_nobody_can_read_may_be_anywhere() {
    let mut all = Objects::default();
    let wrong = Wrong::new("makes no sense");
    let name = ObjectName::new("shop", "billing");
    all.put_malformed(&Malformed { kind: Kind::ExternalPeer, name: name.clone(), wrong });
    assert_eq!(effective(&all, Protection::Prefer).outbound.mode, OutboundMode::Require);
    all.remove(Kind::ExternalPeer, &name);
    assert_eq!(effective(&all, Protection::Prefer).outbound.mode, OutboundMode::Prefer);
}
