use super::*;
use proptest::prelude::*;
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
    Policy::new(&Config::parse(&text, Path::new("test.yaml")).unwrap())
}

fn web() -> WorkloadId {
    sheath_common::workload::workload_id("web")
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
    for (destination, expected, others) in [
        ("10.9.9.9:80", vec!["wide"], vec!["narrow", "port"]),
        ("[fd00::1]:80", vec!["wide"], vec!["narrow"]),
        ("10.0.2.7:80", vec!["narrow", "also"], vec!["wide", "port"]),
        ("10.0.2.7:443", vec!["port"], vec!["narrow", "also", "wide"]),
    ] {
        let authorizer = policy.expect_at(at(destination)).unwrap();
        for name in expected {
            assert_eq!(authorizer.authorize(&id(name)), Ok(()), "{destination} {name}");
        }
        for name in others {
            assert!(authorizer.authorize(&id(name)).is_err(), "{destination} {name}");
        }
    }
    assert_eq!(policy.expect_at(at("11.0.0.1:1")), Err(PolicyError::NoPeer(at("11.0.0.1:1"))));
}

#[test]
fn nobody_is_authorised_by_an_empty_set_or_by_resemblance() {
    let nobody = Authorizer::new(Vec::new());
    assert!(nobody.authorize(&id("web")).is_err());
    let web = Authorizer::new(vec![id("web")]);
    for name in ["Web", "webx", "we", "web.", "other/web"] {
        assert!(web.authorize(&id(name)).is_err(), "{name}");
    }
    let foreign: SpiffeId = "spiffe://example.com/web".parse().unwrap();
    assert!(web.authorize(&foreign).is_err());
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
    assert_eq!(policy.callers(web()).unwrap().authorize(&id("client")), Ok(()));
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

proptest! {
    /// Whatever the kernel would turn to the agent, the agent knows a peer for.
    #[test]
    fn whatever_is_protected_has_a_peer(ip: std::net::IpAddr, port: u16) {
        let policy = policy(r#"{ mode: prefer, bypass: ["10.0.2.9/32"] }"#, PEERS);
        let to = SocketAddr::new(ip, port);
        if policy.verdict(web(), to) == Some(Verdict::Protect) {
            prop_assert!(policy.expect_at(to).is_ok());
        }
    }
}
