use super::*;
use crate::config::Config;
use crate::desired::Destination;
use crate::desired::Endpoints;
use crate::peer::{Alternative, Nobody, Requirement};
use crate::spiffe::{IdPattern, SpiffeId};
use crate::steering::Steering;
use proptest::prelude::*;
use rustls_pki_types::DnsName;
use sheath_common::verdict::{Action, SCOPE_ALL};
use sheath_common::verdict::{Denial, Verdict};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

fn policy(outbound: &str, peers: &str) -> Policy {
    let text = format!(
        r#"
trustDomain: example.org
node: n
identity: {{ ca: {{ dir: /x }} }}
workloads:
  - name: web
    select: {{ cgroup: web }}
    spiffeId: spiffe://example.org/web
    inbound: {{ mode: strict, ports: [8080], allow: ["spiffe://example.org/client"] }}
    outbound: {outbound}
peers: {peers}
"#
    );
    of(&text, &Addresses::new())
}

/// Addresses that DNS names stand for.
type Addresses = HashMap<DnsName<'static>, BTreeSet<IpAddr>>;

fn of(text: &str, addresses: &Addresses) -> Policy {
    let mut desired = Config::parse(text, Path::new("test.yaml")).unwrap().desired;
    desired.number(web()..);
    let endpoints = addresses.iter().map(|(name, addresses)| Endpoints {
        origin: Origin::Dns(name.as_ref().into()),
        name: name.clone(),
        addresses: addresses.clone(),
    });
    desired.endpoints = endpoints.map(Arc::new).collect();
    let mut materials = Materials::default();
    materials.follow(&desired);
    Policy::new(&desired, &materials)
}

/// The SPIFFE IDs that an expectation names.
fn ids(expectation: &Expectation) -> Vec<SpiffeId> {
    let ids = |alternative: &Alternative| match &alternative.requirement {
        Requirement::Svid { ids, .. } => {
            ids.iter().filter_map(|listed| exact(&listed.value)).collect()
        }
        _ => Vec::new(),
    };
    expectation.alternatives().iter().flat_map(ids).collect()
}

fn exact(pattern: &IdPattern) -> Option<SpiffeId> {
    match pattern {
        IdPattern::Exactly(id) => Some(id.clone()),
        IdPattern::AnyOf(_) => None,
    }
}

fn web() -> WorkloadId {
    sheath_common::workload::FIRST_ID
}

fn id(name: &str) -> SpiffeId {
    format!("spiffe://example.org/{name}").parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const PEERS: &str = r#"[
  { match: ["10.0.0.0/8", "fd00::/8"], spiffeIds: ["spiffe://example.org/wide"] },
  { match: ["10.0.2.0/24"], spiffeIds: ["spiffe://example.org/narrow"] },
  { match: ["10.0.2.0/24:443"], spiffeIds: ["spiffe://example.org/port"] },
  { match: ["10.0.2.0/24"], spiffeIds: ["spiffe://example.org/also"] }
]"#;

#[test]
fn the_most_specific_peer_speaks_alone() {
    let policy = policy("{ mode: require }", PEERS);
    for (destination, expected) in [
        ("10.9.9.9:80", vec!["wide"]),
        ("[fd00::1]:80", vec!["wide"]),
        ("10.0.2.7:80", vec!["narrow", "also"]),
        ("10.0.2.7:443", vec!["port"]),
    ] {
        let target = policy.target_at(at(destination)).unwrap();
        let expected: Vec<_> = expected.into_iter().map(id).collect();
        assert_eq!(ids(target.expectation()), expected, "{destination}");
    }
    let nobody = policy.target_at(at("11.0.0.1:1")).err();
    assert_eq!(nobody, Some(PolicyError::NoPeer(at("11.0.0.1:1"))));
}

const EXTERNAL: &str = r#"
trustDomain: example.org
node: n
identity: { ca: { dir: /x } }
workloads: []
peers:
  - { match: ["10.0.2.7:443"], spiffeIds: ["spiffe://example.org/web"] }
externalPeers:
  - { name: named, match: ["billing.example.com:443"], family: ipv4Only, trust: { system: true }, expect: { dnsNames: [billing.example.com] } }
  - { name: addressed, match: ["10.0.2.8:443"], sni: other.example.com, certificate: none, pins: [{ certificateSha256: "0000000000000000000000000000000000000000000000000000000000000000" }] }
"#;

fn external(policy: &Policy, destination: &str) -> Option<(String, Option<String>)> {
    match policy.target_at(at(destination)) {
        Ok(Target::External { peer, server_name }) => {
            Some((peer.name.clone(), server_name.map(|name| name.as_ref().to_owned())))
        }
        _ => None,
    }
}

#[test]
fn names_stand_for_the_addresses_they_resolve_to_and_nothing_else() {
    let name = DnsName::try_from("billing.example.com").unwrap();
    let addresses = ["10.0.2.7", "10.0.2.8", "10.0.2.9", "fd00::9"];
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let policy = of(EXTERNAL, &[(name, addresses)].into());
    let named = Some(("named".to_owned(), Some("billing.example.com".to_owned())));
    assert_eq!(external(&policy, "10.0.2.9:443"), named);
    assert_eq!(external(&policy, "10.0.2.9:80"), None);
    assert_eq!(external(&policy, "[fd00::9]:443"), None, "ipv4Only");
    // What is said of an address itself comes before what a name resolves to.
    assert!(matches!(policy.target_at(at("10.0.2.7:443")), Ok(Target::Agent(_))));
    let addressed = Some(("addressed".to_owned(), Some("other.example.com".to_owned())));
    assert_eq!(external(&policy, "10.0.2.8:443"), addressed);
    assert!(of(EXTERNAL, &Addresses::new()).target_at(at("10.0.2.9:443")).is_err());
}

/// Whoever answers for a name decides about nothing that the configuration speaks of.
#[test]
fn an_answer_does_not_take_addresses_of_others() {
    let text = EXTERNAL.replace("[\"10.0.2.7:443\"]", "[\"10.0.0.0/16:443\"]").replace(
        "match: [\"10.0.2.8:443\"]",
        "match: [\"192.0.2.0/24\", \"other.example.com:443\"]",
    );
    let name = |text| DnsName::try_from(text).unwrap();
    let resolved = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let hostile = resolved(&["10.0.9.9", "192.0.2.5", "198.51.100.1", "203.0.113.1"]);
    let policy = of(
        &text,
        &[
            (name("billing.example.com"), hostile),
            (name("other.example.com"), resolved(&["203.0.113.1"])),
        ]
        .into(),
    );
    let target = policy.target_at(at("10.0.9.9:443")).unwrap();
    assert_eq!(ids(target.expectation()), [id("web")]);
    assert_eq!(external(&policy, "192.0.2.5:443").unwrap().0, "addressed");
    assert_eq!(external(&policy, "198.51.100.1:443").unwrap().0, "named");
    // Both names, so nobody.
    let target = policy.target_at(at("203.0.113.1:443")).unwrap();
    assert!(target.expectation().alternatives().is_empty());
    assert_eq!(target.expectation().why_nobody(), Nobody::Ambiguous);
}

#[test]
fn a_live_flow_is_judged_by_its_external_peer_also_when_the_address_has_gone() {
    let name = DnsName::try_from("billing.example.com").unwrap();
    let before = of(EXTERNAL, &[(name, ["10.0.2.9".parse().unwrap()].into())].into());
    let target = before.target_at(at("10.0.2.9:443")).unwrap();
    let after = of(EXTERNAL, &Addresses::new());
    assert!(after.expectation_of(&target, at("10.0.2.9:443")).is_ok());
    let gone = of(EXTERNAL.split("externalPeers").next().unwrap(), &Addresses::new());
    assert!(gone.expectation_of(&target, at("10.0.2.9:443")).is_err());
    // The same where another process has begun it.
    let (saved, to) = (target.save(), at("10.0.2.9:443"));
    assert_eq!(after.target_again(&saved).unwrap().external_name(), Some("named"));
    let again = |policy: &Policy| policy.expectation_of(&policy.target_again(&saved).unwrap(), to);
    assert!(again(&after).is_ok());
    assert_eq!(again(&gone).err(), gone.expectation_of(&target, to).err());
}

#[test]
fn a_peer_that_another_process_has_dialled_is_whoever_is_expected_there_now() {
    let (before, after) = (policy("{ mode: require }", PEERS), policy("{ mode: require }", "[]"));
    for destination in ["10.9.9.9:80", "10.0.2.7:80", "10.0.2.7:443"].map(at) {
        let target = before.target_at(destination).unwrap();
        let again = before.target_again(&target.save()).unwrap();
        let now = before.expectation_of(&again, destination).unwrap();
        assert_eq!(ids(&now), ids(target.expectation()));
        let error = after.expectation_of(&again, destination).unwrap_err();
        assert_eq!(error, PolicyError::NoPeer(destination));
    }
}

#[test]
fn verdicts_follow_modes_and_bypasses() {
    let strict = policy(r#"{ mode: require, bypass: ["10.0.2.9/32", "10.1.0.0/16:53"] }"#, PEERS);
    assert_eq!(strict.verdict(web(), at("10.0.2.7:80")), Some(Verdict::Protect));
    assert_eq!(strict.verdict(web(), at("10.0.2.9:80")), Some(Verdict::Bypass));
    assert_eq!(strict.verdict(web(), at("10.1.2.3:53")), Some(Verdict::Bypass));
    assert_eq!(strict.verdict(web(), at("10.1.2.3:54")), Some(Verdict::Protect));
    assert!(matches!(strict.verdict(web(), at("192.0.2.1:80")), Some(Verdict::Deny(_))));
    let lax = policy("{ mode: prefer }", PEERS);
    assert_eq!(lax.verdict(web(), at("192.0.2.1:80")), Some(Verdict::Bypass));
    assert_eq!(lax.verdict(web() + 1, at("192.0.2.1:80")), None);
}

#[test]
fn inbound_covers_the_declared_ports() {
    let policy = policy("{ mode: disabled }", "[]");
    assert!(policy.covers_inbound(web(), 8080));
    assert!(!policy.covers_inbound(web(), 8081));
    assert_eq!(policy.inbound_mode(web()), Ok(InboundMode::Strict));
    assert_eq!(ids(&policy.inbound(web()).unwrap().callers), [id("client")]);
}

#[test]
fn kernel_rules_say_what_the_configuration_says() {
    let policy = policy(r#"{ mode: require, bypass: ["10.0.2.9/32:1"] }"#, PEERS);
    let rules = policy.kernel_rules();
    let find = |text: &str| {
        let destination = Destination::try_from(text.to_owned()).unwrap();
        rules.iter().find(|rule| rule.destination == destination).unwrap()
    };
    assert_eq!(rules.len(), 5);
    assert_eq!(find("10.0.2.0/24").action, Action::Protect);
    assert_eq!(find("10.0.2.0/24").scope, SCOPE_ALL);
    assert_eq!(find("fd00::/8").action, Action::Protect);
    assert_eq!(find("10.0.2.9/32:1").action, Action::Bypass);
    assert_eq!(find("10.0.2.9/32:1").scope, web());
}

/// What is decided, and by which rule.
fn decided(policy: &Policy, to: &str) -> (Verdict, String) {
    let Decision { verdict, rule } = policy.decide(web(), at(to)).unwrap();
    (verdict, rule.to_string())
}

#[test]
fn a_verdict_names_the_rule_that_won() {
    let bypass = r#"bypass: ["10.0.2.9/32", "10.1.0.0/16:53"]"#;
    let strict = policy(&format!("{{ mode: require, {bypass} }}"), PEERS);
    let mode = "workloads[web].outbound.mode";
    for (to, verdict, rule) in [
        ("10.0.2.7:443", Verdict::Protect, "peers[2]"),
        // Two entries speak of it; the first that was written is named.
        ("10.0.2.7:80", Verdict::Protect, "peers[1]"),
        ("10.9.9.9:80", Verdict::Protect, "peers[0]"),
        ("[fd00::1]:80", Verdict::Protect, "peers[0]"),
        ("10.0.2.9:80", Verdict::Bypass, "workloads[web].outbound.bypass"),
        ("10.1.2.3:53", Verdict::Bypass, "workloads[web].outbound.bypass"),
        ("192.0.2.1:80", Verdict::Deny(Denial::UnknownDestination), mode),
        ("127.0.0.1:80", Verdict::Bypass, "built-in"),
        ("127.0.0.1:15001", Verdict::Deny(Denial::AgentPort), "built-in"),
    ] {
        assert_eq!(decided(&strict, to), (verdict, rule.to_owned()), "{to}");
    }
    let lax = policy("{ mode: prefer }", PEERS);
    assert_eq!(decided(&lax, "192.0.2.1:80"), (Verdict::Bypass, mode.to_owned()));
    let off = policy("{ mode: disabled }", PEERS);
    assert_eq!(decided(&off, "10.0.2.7:443"), (Verdict::Bypass, mode.to_owned()));
    let link_local = policy(
        "{ mode: prefer }",
        r#"[
  { match: ["::/0"], spiffeIds: ["spiffe://example.org/web"] }
]"#,
    );
    let denied = Verdict::Deny(Denial::LinkLocal);
    assert_eq!(decided(&link_local, "[fe80::1]:80"), (denied, "peers[0]".to_owned()));
}

#[test]
fn a_denial_of_the_kernels_has_a_rule_if_it_is_one_of_policys() {
    let policy = policy("{ mode: require }", PEERS);
    let rule = |to: &str, denial: Denial| {
        policy.rule_of_denial(web(), at(to), denial as u32).map(|rule| rule.to_string())
    };
    let mode = "workloads[web].outbound.mode".to_owned();
    assert_eq!(rule("192.0.2.1:80", Denial::UnknownDestination), Some(mode));
    // The destination is allowed: something else has failed.
    assert_eq!(rule("10.0.2.7:443", Denial::NoMemory), None);
    assert_eq!(rule("192.0.2.1:80", Denial::NamespaceNotReady), None);
}

#[test]
fn expectations_name_what_was_written() {
    let external_peer = of(EXTERNAL, &Addresses::new());
    let rule = |policy: &Policy, to: &str| {
        policy.target_at(at(to)).unwrap().rule().map(ToString::to_string)
    };
    assert_eq!(rule(&external_peer, "10.0.2.8:443"), Some("externalPeers[addressed]".to_owned()));
    let policy = policy("{ mode: require }", PEERS);
    assert_eq!(rule(&policy, "10.0.2.7:80"), Some("peers[1]".to_owned()));
    let callers = policy.inbound(web()).unwrap().expectation(true);
    assert_eq!(callers.rule().unwrap().to_string(), "workloads[web].inbound.allow");
    let led = policy.check_port(web(), 80, 8080).unwrap_err();
    assert_eq!(led.rule().unwrap().to_string(), "workloads[web].inbound.publishedPorts");
    let nobody = policy.target_at(at("192.0.2.1:80")).unwrap_err();
    assert!(nobody.to_string().contains("for 192.0.2.1:80: add an entry to `peers`"), "{nobody}");
}

mod directory;

proptest! {
    /// Whatever the kernel would turn to the agent, the agent knows a peer for.
    #[test]
    fn whatever_is_protected_has_a_peer(ip: std::net::IpAddr, port: u16) {
        let policy = policy(r#"{ mode: prefer, bypass: ["10.0.2.9/32"] }"#, PEERS);
        let to = SocketAddr::new(ip, port);
        if policy.verdict(web(), to) == Some(Verdict::Protect) {
            prop_assert!(policy.target_at(to).is_ok());
        }
    }
}
