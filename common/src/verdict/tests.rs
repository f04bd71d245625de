use super::*;
use crate::net::{AGENT_PORT, AGENT_PORTS_V6, Address};
use proptest::prelude::*;

fn endpoint(words: [u32; 4], port: u16) -> Endpoint {
    Endpoint { address: Address::from_v6(words), port: port.into() }
}

fn v4(a: u8, b: u8, c: u8, d: u8, port: u16) -> Endpoint {
    Endpoint { address: Address::from_v4(u32::from_ne_bytes([a, b, c, d])), port: port.into() }
}

fn any_mode() -> impl Strategy<Value = OutboundMode> {
    prop_oneof![
        Just(OutboundMode::Disabled),
        Just(OutboundMode::Prefer),
        Just(OutboundMode::Require),
    ]
}

fn any_rule() -> impl Strategy<Value = Option<Destination>> {
    proptest::option::of((any::<bool>(), 0..=128_u32).prop_map(|(protect, len)| {
        Destination::new(if protect { Action::Protect } else { Action::Bypass }, len)
    }))
}

/// The longest match of each of the four tries that the one trie holds.
#[derive(Clone, Copy, Debug, Default)]
struct Candidates {
    /// The workload's own rule for exactly this port.
    own_port: Option<Destination>,
    /// The workload's own rule for any port.
    own_any: Option<Destination>,
    /// A rule of all workloads for exactly this port.
    all_port: Option<Destination>,
    /// A rule of all workloads for any port.
    all_any: Option<Destination>,
}

fn decide(mode: OutboundMode, destination: &Endpoint, c: &Candidates) -> Verdict {
    let best = rules(c)
        .into_iter()
        .fold(Best::default(), |best, (rule, port)| best.or(rule.as_ref(), port == 1));
    super::decide(mode, destination, best)
}

fn any_candidates() -> impl Strategy<Value = Candidates> {
    (any_rule(), any_rule(), any_rule(), any_rule()).prop_map(
        |(own_port, own_any, all_port, all_any)| Candidates {
            own_port,
            own_any,
            all_port,
            all_any,
        },
    )
}

fn rules(c: &Candidates) -> [(Option<Destination>, u32); 4] {
    [(c.own_port, 1), (c.all_port, 1), (c.own_any, 0), (c.all_any, 0)]
}

proptest! {
    /// A destination covered by a "protect" rule that nothing outdoes is never left in plaintext.
    #[test]
    fn a_protected_destination_is_never_bypassed(
        words: [u32; 4], port: u16, c in any_candidates(), require: bool,
    ) {
        let mode = if require { OutboundMode::Require } else { OutboundMode::Prefer };
        let destination = endpoint(words, port);
        prop_assume!(!destination.address.is_loopback() && !destination.address.is_unspecified());
        let weight = |(rule, port): (Option<Destination>, u32)| rule.map(|r| (r.prefix_len * 2 + port, r.action()));
        let strongest = rules(&c).into_iter().filter_map(weight).map(|(w, _)| w).max();
        let protected = rules(&c).into_iter().filter_map(weight)
            .any(|(w, action)| Some(w) == strongest && action == Action::Protect);
        let verdict = decide(mode, &destination, &c);
        prop_assert_eq!(protected, matches!(verdict, Verdict::Protect | Verdict::Deny(Denial::LinkLocal)));
    }

    /// `require` lets nothing through that no rule names.
    #[test]
    fn require_refuses_the_unknown(words: [u32; 4], port: u16) {
        let destination = endpoint(words, port);
        prop_assume!(!destination.address.is_loopback() && !destination.address.is_unspecified());
        prop_assert_eq!(
            decide(OutboundMode::Require, &destination, &Candidates::default()),
            Verdict::Deny(Denial::UnknownDestination)
        );
    }

    /// `prefer` differs from `require` only where no rule matches.
    #[test]
    fn prefer_differs_from_require_only_for_the_unknown(words: [u32; 4], port: u16, c in any_candidates()) {
        let destination = endpoint(words, port);
        let known = rules(&c).iter().any(|(rule, _)| rule.is_some());
        if known {
            prop_assert_eq!(
                decide(OutboundMode::Prefer, &destination, &c),
                decide(OutboundMode::Require, &destination, &c)
            );
        }
    }

    /// Loopback stays local in every mode, but for the agent's own port, which no workload may dial.
    #[test]
    fn loopback_is_local_except_for_the_agents_port(last: [u8; 3], port: u16, mode in any_mode(), c in any_candidates()) {
        let expected = if port == AGENT_PORT { Verdict::Deny(Denial::AgentPort) } else { Verdict::Bypass };
        prop_assert_eq!(decide(mode, &v4(127, last[0], last[1], last[2], port), &c), expected);
        let v6 = Endpoint { address: Address::LOOPBACK_V6, port: port.into() };
        let is_agents = (AGENT_PORT..AGENT_PORT + AGENT_PORTS_V6).contains(&port);
        let of_v6 = if is_agents { Verdict::Deny(Denial::AgentPort) } else { Verdict::Bypass };
        prop_assert_eq!(decide(mode, &v6, &c), of_v6);
        prop_assert_eq!(decide(mode, &v4(0, 0, 0, 0, port), &c), expected);
    }

    /// `disabled` touches nothing beyond the agent's port.
    #[test]
    fn disabled_touches_nothing(words: [u32; 4], port: u16, c in any_candidates()) {
        prop_assume!(port != AGENT_PORT);
        prop_assert_eq!(decide(OutboundMode::Disabled, &endpoint(words, port), &c), Verdict::Bypass);
    }
}

#[test]
fn the_longer_prefix_wins_whoever_wrote_it() {
    let wide_bypass = Destination::new(Action::Bypass, 96 + 8);
    let narrow_protect = Destination::new(Action::Protect, 96 + 24);
    let c = Candidates {
        own_any: Some(wide_bypass),
        all_any: Some(narrow_protect),
        ..Candidates::default()
    };
    assert_eq!(decide(OutboundMode::Prefer, &v4(10, 0, 2, 1, 80), &c), Verdict::Protect);
}

#[test]
fn a_rule_that_names_the_port_beats_one_of_the_same_prefix() {
    let c = Candidates {
        own_port: Some(Destination::new(Action::Bypass, 128)),
        all_any: Some(Destination::new(Action::Protect, 128)),
        ..Candidates::default()
    };
    assert_eq!(decide(OutboundMode::Require, &v4(10, 0, 2, 1, 80), &c), Verdict::Bypass);
}

#[test]
fn protection_wins_a_tie() {
    let c = Candidates {
        own_any: Some(Destination::new(Action::Bypass, 120)),
        all_any: Some(Destination::new(Action::Protect, 120)),
        ..Candidates::default()
    };
    assert_eq!(decide(OutboundMode::Prefer, &v4(10, 0, 2, 1, 80), &c), Verdict::Protect);
}

#[test]
fn a_protected_link_local_destination_is_refused() {
    let c = Candidates {
        all_any: Some(Destination::new(Action::Protect, 10)),
        ..Candidates::default()
    };
    let link_local = endpoint([0xfe80_0000_u32.to_be(), 0, 0, 1_u32.to_be()], 80);
    assert_eq!(decide(OutboundMode::Prefer, &link_local, &c), Verdict::Deny(Denial::LinkLocal));
}
