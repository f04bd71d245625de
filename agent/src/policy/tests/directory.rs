//! The directory behind what is written: on the host as in the kernel.

use super::*;
use crate::directory::testing::{any_entry, any_service_ports, pending, plain, protected};
use crate::directory::{Collected, Delta, Directory, Entry, Position};
use crate::peer::UidHash;
use crate::steering::{kernel_port, mapped_length};
use sheath_common::net::{Address, Endpoint};
use sheath_common::verdict::{
    Destination as Rule, DestinationKey, Known, PORT_ANY, SCOPE_CLUSTER, Tables, best_rule, decide,
};
use sheath_common::workload::OutboundMode;

const RANGE: &str = "10.1.0.0/24";

fn directory(entries: &[(IpAddr, Entry)]) -> Directory {
    let mut all = Collected::begin(Position { epoch: 1, sequence: 1 });
    entries.iter().for_each(|(ip, entry)| all.add(*ip, entry.clone()));
    all.set_ranges(vec![RANGE.parse().unwrap()]);
    all.complete(&Directory::default()).0
}

/// Ports of Services, and what the kernel is told of each.
type Ports = Arc<[(u16, Known)]>;

/// The same, with Services at these ports.
fn with_services(entries: &[(IpAddr, Entry)], services: &[(IpAddr, Ports)]) -> Directory {
    let before = directory(entries);
    let services = services.to_vec();
    let position = Position { epoch: 1, sequence: 2 };
    let delta = Delta { position, changes: Vec::new(), ranges: None };
    before.with_services(delta, services).unwrap().0
}

fn by(policy: Policy, entries: &[(IpAddr, Entry)]) -> Policy {
    let shared = Arc::new(Shared::default());
    shared.publish(directory(entries));
    policy.with_directory(shared)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const WRITTEN: &str = r#"[
  { match: ["10.1.0.3", "10.1.0.4:80"], spiffeIds: ["spiffe://example.org/written"] }
]"#;

fn known() -> Vec<(IpAddr, Entry)> {
    let entries = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"].map(ip);
    let said = [plain(1), pending(2), protected(3, "web"), protected(4, "web"), protected(5, "db")];
    entries.into_iter().zip(said).collect()
}

#[test]
fn what_is_written_comes_first_and_then_the_directory() {
    let policy = by(policy(r#"{ mode: require, bypass: ["10.1.0.5"] }"#, WRITTEN), &known());
    let expected = |to: &str| policy.target_at(at(to)).map(|t| ids(t.expectation())[0].to_string());
    let written = Ok("spiffe://example.org/written".to_owned());
    assert_eq!(expected("10.1.0.3:80"), written);
    assert_eq!(expected("10.1.0.4:80"), written);
    let web = Ok("spiffe://example.org/ns/shop/sa/web".to_owned());
    assert_eq!(expected("10.1.0.4:81"), web);
    for (to, refused) in [
        ("10.1.0.1:80", PolicyError::Plain(at("10.1.0.1:80"))),
        ("10.1.0.9:80", PolicyError::Unknown(at("10.1.0.9:80"))),
        ("10.9.0.9:80", PolicyError::NoPeer(at("10.9.0.9:80"))),
    ] {
        assert_eq!(expected(to), Err(refused), "{to}");
    }
    let pending = expected("10.1.0.2:80").unwrap_err();
    assert!(matches!(&pending, PolicyError::Pending { node, .. } if &**node == "node-b"));
    assert_eq!(pending.rule(), Some(&Origin::Directory));
    for (to, verdict, rule) in [
        ("10.1.0.5:80", Verdict::Bypass, "workloads[web].outbound.bypass"),
        ("10.1.0.3:80", Verdict::Protect, "peers[0]"),
        ("10.1.0.4:81", Verdict::Protect, "directory"),
        ("10.1.0.2:81", Verdict::Deny(Denial::NobodyReady), "directory"),
        ("10.1.0.9:81", Verdict::Protect, "directory"),
        ("10.1.0.1:80", Verdict::Deny(Denial::PlainDestination), "workloads[web].outbound.mode"),
    ] {
        assert_eq!(decided(&policy, to), (verdict, rule.to_owned()), "{to}");
    }
}

/// Also beyond the ranges of the cluster, as external addresses are.
#[test]
fn at_a_service_the_agent_chooses_unless_a_pod_is_there() {
    let ports = [(80, Known::PROTECT), (82, Known::REFUSE), (83, Known::BYPASS)];
    let services = ["10.1.0.1", "10.9.0.9"].map(|text| (ip(text), Ports::from(ports)));
    for mode in ["require", "prefer"] {
        let shared = Arc::new(Shared::default());
        shared.publish(with_services(&known(), &services));
        let policy = policy(&format!("{{ mode: {mode} }}"), "[]").with_directory(shared);
        let refused = |to: &str| policy.target_at(at(to)).unwrap_err();
        assert_eq!(refused("10.9.0.9:80"), PolicyError::Unknown(at("10.9.0.9:80")));
        assert_eq!(refused("10.9.0.9:81"), PolicyError::NoPeer(at("10.9.0.9:81")));
        assert_eq!(refused("10.1.0.1:80"), PolicyError::Plain(at("10.1.0.1:80")));
        assert_eq!(decided(&policy, "10.9.0.9:80").0, Verdict::Protect);
        assert_eq!(decided(&policy, "10.9.0.9:82").0, Verdict::Deny(Denial::NobodyReady));
        assert_eq!(refused("10.9.0.9:82"), PolicyError::Unknown(at("10.9.0.9:82")));
        assert_eq!(decided(&policy, "10.9.0.9:83").0, Verdict::Bypass);
        assert_eq!(refused("10.9.0.9:83"), PolicyError::Bypassed(at("10.9.0.9:83")));
        assert_ne!(decided(&policy, "10.9.0.9:81").0, Verdict::Protect);
        assert_ne!(decided(&policy, "10.1.0.1:80").0, Verdict::Protect);
    }
}

/// Only another pod at the address ends what a pod has proved.
#[test]
fn a_live_session_is_judged_by_whether_another_pod_is_there() {
    let shared = Arc::new(Shared::default());
    let policy = policy("{ mode: prefer }", "[]").with_directory(shared.clone());
    let to = at("10.1.0.7:80");
    let says = |entry: Option<Entry>| {
        let entries: Vec<_> = entry.map(|entry| (to.ip(), entry)).into_iter().collect();
        shared.publish(directory(&entries));
    };
    says(Some(protected(7, "web")));
    let target = policy.target_at(to).unwrap();
    assert_eq!(target.pod(), Some(UidHash(7)));
    for (entry, is_good) in [
        (Some(protected(7, "web")), true),
        (Some(pending(7)), true),
        (Some(plain(7)), true),
        (None, true),
        (Some(protected(8, "web")), false),
        (Some(plain(8)), false),
        (Some(pending(8)), false),
    ] {
        says(entry.clone());
        let judged = policy.expectation_of(&target, to);
        assert_eq!(judged.is_ok(), is_good, "{entry:?}");
        assert_eq!(policy.check_pod(&target, to).is_ok(), is_good, "{entry:?}");
        // The same where another process has begun it.
        let again = policy.target_again(&target.save()).unwrap();
        assert_eq!(again.pod(), target.pod());
        let again = policy.expectation_of(&again, to).map(|expectation| ids(&expectation));
        assert_eq!(again, judged.map(|expectation| ids(&expectation)), "{entry:?}");
    }
    let nonsense = SavedTarget::Pod { uid: 7, ids: vec!["web".to_owned()] };
    assert!(policy.target_again(&nonsense).is_none());
}

/// What goes to a place that nobody protects ends with the pod there; that it is protected now ends it where that is asked for.
#[test]
fn a_flow_without_protection_is_judged_by_who_is_there_now() {
    let to = at("10.9.0.7:80");
    for existing in [Existing::Keep, Existing::Reset] {
        let shared = Arc::new(Shared::default());
        let policy = policy("{ mode: prefer }", "[]").with_directory(shared.clone());
        let mut workload = policy.workload(web()).unwrap().clone();
        workload.existing = existing;
        let desired = Desired { workloads: vec![Arc::new(workload)], ..Desired::default() };
        let policy = Policy::new(&desired, &Materials::default()).with_directory(shared.clone());
        for (entry, pod, may_begin, may_go_on) in [
            (None, None, true, true),
            (None, Some(7), true, true),
            (Some(plain(7)), Some(7), true, true),
            (Some(plain(8)), Some(7), false, false),
            (Some(protected(8, "web")), Some(7), false, false),
            (Some(pending(7)), Some(7), false, existing == Existing::Keep),
            (Some(protected(7, "web")), Some(7), false, existing == Existing::Keep),
            (Some(protected(7, "web")), None, false, existing == Existing::Keep),
        ] {
            let entries: Vec<_> = entry.iter().map(|entry| (to.ip(), entry.clone())).collect();
            shared.publish(directory(&entries));
            let pod = pod.map(UidHash);
            assert_eq!(policy.check_new_plain(pod, to).is_ok(), may_begin, "{entry:?}");
            assert_eq!(policy.check_plain(web(), pod, to).is_ok(), may_go_on, "{entry:?}");
        }
    }
}

/// The kernel's maps, as the agent writes them.
struct Maps {
    rules: HashMap<(DestinationKey, u32), Rule>,
    directory: HashMap<Endpoint, Known>,
}

impl Maps {
    fn of(policy: &Policy) -> Self {
        let rules = policy.kernel_rules().into_iter().map(|rule| {
            let length = u32::from(mapped_length(&rule.destination.prefix));
            let key = DestinationKey {
                scope: rule.scope,
                port: kernel_port(&rule.destination),
                address: rule.destination.prefix.addr().into(),
            };
            ((key, length), Rule::new(rule.action, length))
        });
        let directory = policy.directory.load();
        let ranges = directory.ranges().iter().map(|range| {
            let (length, address) = (u32::from(mapped_length(range)), range.addr().into());
            let key = DestinationKey { scope: SCOPE_CLUSTER, port: PORT_ANY, address };
            ((key, length), Rule::new(Action::Protect, length))
        });
        Self {
            rules: rules.chain(ranges).collect(),
            directory: directory.addresses().flat_map(|ip| directory.kernel_entries(ip)).collect(),
        }
    }
}

fn truncated(address: Address, length: u32) -> Address {
    let bits = u128::from(std::net::Ipv6Addr::from(match IpAddr::from(address) {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }));
    let kept = bits & u128::MAX.checked_shl(128 - length).unwrap_or(0);
    IpAddr::from(std::net::Ipv6Addr::from(kept)).into()
}

impl<'m> Tables<'m> for &'m Maps {
    fn address(&self, key: &DestinationKey) -> Option<&'m Rule> {
        self.rules.get(&(*key, 128))
    }

    fn prefix(&self, key: &DestinationKey) -> Option<&'m Rule> {
        (0..128).rev().find_map(|length| {
            let address = truncated(key.address, length);
            self.rules.get(&(DestinationKey { address, ..*key }, length))
        })
    }

    fn directory(&self, key: &Endpoint) -> Option<&'m Known> {
        self.directory.get(key)
    }
}

proptest! {
    /// Whatever is written and known, the host tells of the kernel what the kernel does; and where that is to turn a connection to
    /// the agent, the agent either knows whom to expect, or refuses.
    #[test]
    fn the_kernel_and_its_twin_decide_the_same(
        entries in prop::collection::vec((0..12_u8, any_entry()), 0..8), require: bool, last in 0..14_u8, port in 0..5_u16,
        network in 0..3_u8, services in prop::collection::vec((0..3_u8, 0..14_u8, any_service_ports()), 0..6),
    ) {
        let entries: Vec<_> = entries.into_iter().map(|(n, entry)| (IpAddr::from([10, 1, 0, n]), entry)).collect();
        let mode = if require { "require" } else { "prefer" };
        let bypass = r#"bypass: ["10.1.0.6", "10.1.0.8/31", "10.1.0.2:3"]"#;
        let peers = r#"[
          { match: ["10.1.0.3", "10.1.0.4:2", "10.1.0.8/30"], spiffeIds: ["spiffe://example.org/written"] }
        ]"#;
        let services: Vec<_> =
            services.into_iter().map(|(net, n, ports)| (IpAddr::from([10, 1, net, n]), ports)).collect();
        let shared = Arc::new(Shared::default());
        shared.publish(with_services(&entries, &services));
        let policy = policy(&format!("{{ mode: {mode}, {bypass} }}"), peers).with_directory(shared);
        let to = SocketAddr::from(([10, 1, network, last], port));
        let maps = Maps::of(&policy);
        let endpoint = Endpoint::from(to);
        let mode = if require { OutboundMode::Require } else { OutboundMode::Prefer };
        let kernel = decide(mode, &endpoint, best_rule(web(), &endpoint, &&maps));
        prop_assert_eq!(policy.verdict(web(), to), Some(kernel));
        let target = policy.target_at(to);
        match kernel {
            Verdict::Protect => prop_assert!(!matches!(target, Err(PolicyError::Plain(_) | PolicyError::NoPeer(_)))),
            Verdict::Bypass if require => prop_assert!(
                bypass.contains(&to.ip().to_string()) || to.ip().to_string().ends_with(".9")
                    || matches!(target, Err(PolicyError::Bypassed(_)))
            ),
            // Whoever is refused at once would be refused by the agent.
            Verdict::Deny(Denial::NobodyReady) => {
                let is_refused =
                    matches!(target, Err(PolicyError::Unknown(_) | PolicyError::Pending { .. }));
                prop_assert!(is_refused);
            }
            _ => {}
        }
    }
}
