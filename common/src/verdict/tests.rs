use std::collections::HashMap;

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

/// A rule as it is written: whose, for which port, and for which addresses.
#[derive(Clone, Debug)]
struct Rule {
    scope: u32,
    port: u32,
    /// In the last byte of an IPv4 address.
    prefix: (u8, u32),
    action: Action,
}

impl Rule {
    fn length(&self) -> u32 {
        120 + self.prefix.1
    }

    /// The bits of a last byte that count.
    fn mask(&self) -> u8 {
        (0xff00_u16 >> self.prefix.1) as u8
    }

    fn key(&self) -> DestinationKey {
        let address = v4(10, 0, 0, self.prefix.0 & self.mask(), 0).address;
        DestinationKey { scope: self.scope, port: self.port, address }
    }

    fn value(&self) -> Destination {
        Destination::new(self.action, self.length())
    }

    fn matches(&self, workload: u32, last: u8, port: u32) -> bool {
        (self.scope == SCOPE_ALL || self.scope == workload)
            && (self.port == PORT_ANY || self.port == port)
            && (last ^ self.prefix.0) & self.mask() == 0
    }
}

fn written_rule() -> impl Strategy<Value = Rule> {
    let length = prop_oneof![1 => 0..=7_u32, 1 => Just(8)];
    (0..3_u32, 0..3_u32, (0..16_u8, length), any::<bool>()).prop_map(
        |(scope, port, prefix, protect)| Rule {
            scope,
            port,
            prefix,
            action: if protect { Action::Protect } else { Action::Bypass },
        },
    )
}

/// The kernel's maps: rules about one address, all other rules, and the directory.
#[derive(Default)]
struct Maps {
    addresses: HashMap<DestinationKey, Destination>,
    prefixes: Vec<(DestinationKey, Destination)>,
    directory: HashMap<Endpoint, Known>,
}

impl Maps {
    /// As the agent writes them; of two rules for the very same, the last.
    fn new(rules: &[Rule]) -> Self {
        let mut tables = Self::default();
        for rule in rules {
            if rule.length() == ADDRESS_BITS {
                tables.addresses.insert(rule.key(), rule.value());
            } else {
                let same = |(key, value): &(DestinationKey, Destination)| {
                    (*key, value.prefix_len) == (rule.key(), rule.length())
                };
                tables.prefixes.retain(|entry| !same(entry));
                tables.prefixes.push((rule.key(), rule.value()));
            }
        }
        tables
    }

    fn best(&self, workload: u32, destination: &Endpoint) -> Best {
        best_rule(workload, destination, &self)
    }
}

impl<'m> Tables<'m> for &'m Maps {
    fn address(&self, key: &DestinationKey) -> Option<&'m Destination> {
        self.addresses.get(key)
    }

    fn prefix(&self, key: &DestinationKey) -> Option<&'m Destination> {
        let last = |address: &Address| address.v4().unwrap().to_ne_bytes()[3];
        let matches = |(known, value): &&(DestinationKey, Destination)| {
            let mask = (0xff00_u16 >> (value.prefix_len - 120)) as u8;
            (known.scope, known.port) == (key.scope, key.port)
                && (last(&known.address) ^ last(&key.address)) & mask == 0
        };
        let matching = self.prefixes.iter().filter(matches);
        matching.max_by_key(|(_, value)| value.prefix_len).map(|(_, value)| value)
    }

    fn directory(&self, key: &Endpoint) -> Option<&'m Known> {
        self.directory.get(key)
    }
}

/// All rules looked at one by one: the longest prefix, then the port, then protection.
fn best_of_all(rules: &[Rule], workload: u32, last: u8, port: u32) -> Option<Action> {
    // Of two rules for the very same, the last has taken the place of the first.
    let identity = |rule: &Rule| (rule.key(), rule.length());
    let in_force = rules
        .iter()
        .enumerate()
        .filter(|(at, rule)| rules[at + 1..].iter().all(|later| identity(later) != identity(rule)));
    let matching = in_force.map(|(_, rule)| rule).filter(|r| r.matches(workload, last, port));
    let rank =
        |rule: &&Rule| (rule.length(), rule.port != PORT_ANY, rule.action == Action::Protect);
    matching.max_by_key(rank).map(|rule| rule.action)
}

proptest! {
    /// Rules about single addresses in a map of their own change no verdict.
    #[test]
    fn two_tables_say_what_all_rules_say(
        rules in prop::collection::vec(written_rule(), 0..40), workload in 1..3_u32, last in 0..16_u8, port in 1..3_u16,
    ) {
        let best = Maps::new(&rules).best(workload, &v4(10, 0, 0, last, port));
        prop_assert_eq!(best.action(), best_of_all(&rules, workload, last, port.into()));
    }
}

fn known() -> impl Strategy<Value = Known> {
    let all = [Known::PLAIN, Known::PROTECT, Known::BYPASS, Known::REFUSE];
    prop::sample::select(all.to_vec())
}

proptest! {
    /// Rules first, then the directory by port, then by address, then the ranges of the cluster.
    #[test]
    fn the_directory_is_asked_where_no_rule_speaks(
        rules in prop::collection::vec(written_rule(), 0..4), workload in 1..3_u32, last in 0..16_u8, port in 1..3_u16,
        of_port in proptest::option::of(known()), of_address in proptest::option::of(known()), in_range: bool,
    ) {
        let destination = v4(10, 0, 0, last, port);
        let address = destination.address;
        let mut maps = Maps::new(&rules);
        maps.directory.extend(of_port.map(|known| (destination, known)));
        maps.directory.extend(of_address.map(|known| (Endpoint { address, port: PORT_ANY }, known)));
        if in_range {
            let network = v4(10, 0, 0, 0, 0).address;
            let key = DestinationKey { scope: SCOPE_CLUSTER, port: PORT_ANY, address: network };
            maps.prefixes.push((key, Destination::new(Action::Protect, 124)));
        }
        let rule = best_of_all(&rules, workload, last, port.into());
        let range = (in_range && last < 16).then_some(Action::Protect);
        let expected = rule.or(of_port.or(of_address).map(|known| known.action())).or(range);
        prop_assert_eq!(maps.best(workload, &destination).action(), expected);
    }
}

#[test]
fn the_mode_says_what_becomes_of_what_is_plain() {
    let destination = v4(10, 0, 0, 1, 443);
    let plain = Best::of_directory(Action::Plain);
    let verdict = |mode| super::decide_by(mode, &destination, plain);
    assert_eq!(verdict(OutboundMode::Prefer), (Verdict::Bypass, Ground::Mode));
    let denied = Verdict::Deny(Denial::PlainDestination);
    assert_eq!(verdict(OutboundMode::Require), (denied, Ground::Mode));
    assert_eq!(verdict(OutboundMode::Disabled), (Verdict::Bypass, Ground::Mode));
}

#[test]
fn an_unknown_code_of_the_directory_protects() {
    assert_eq!(Known { action: 7 }.action(), Action::Protect);
    assert_eq!(Known::default(), Known::PROTECT);
    assert_eq!(
        [Known::PROTECT, Known::PLAIN, Known::BYPASS, Known::REFUSE].map(|k| k.action()),
        [Action::Protect, Action::Plain, Action::Bypass, Action::Refuse]
    );
    // What the program answers for a pointer that nobody passes.
    assert_eq!(Best::from_bits(u32::MAX).action(), Some(Action::Protect));
}

#[test]
fn where_nobody_is_ready_every_mode_but_none_refuses() {
    let destination = v4(10, 0, 0, 1, 443);
    let refused = Best::of_directory(Action::Refuse);
    let verdict = |mode| super::decide_by(mode, &destination, refused);
    let denied = (Verdict::Deny(Denial::NobodyReady), Ground::Rule);
    assert_eq!(verdict(OutboundMode::Prefer), denied);
    assert_eq!(verdict(OutboundMode::Require), denied);
    assert_eq!(verdict(OutboundMode::Disabled), (Verdict::Bypass, Ground::Mode));
}

#[test]
fn a_rule_about_the_address_itself_outdoes_every_prefix() {
    let prefix = |names_port| {
        let rule = Destination::new(Action::Protect, ADDRESS_BITS - 1);
        Best::default().or(Some(&rule), names_port)
    };
    let address = Best::default().or(Some(&Destination::new(Action::Bypass, ADDRESS_BITS)), false);
    assert!(address.0 > prefix(true).0 && prefix(true).0 > prefix(false).0);
}

/// What the BPF function that looks rules up returns where there is nothing that it could look up.
#[test]
fn all_ones_are_a_rule_that_protects() {
    let destination = v4(10, 0, 0, 1, 443);
    for mode in [OutboundMode::Prefer, OutboundMode::Require] {
        let verdict = super::decide(mode, &destination, Best::from_bits(u32::MAX));
        assert_eq!(verdict, Verdict::Protect);
    }
}
