use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

/// Few addresses and ports, so that destinations meet; every kind of length, single addresses above all.
fn destination() -> impl Strategy<Value = Destination> {
    let length = prop_oneof![1 => 0..=31_u8, 2 => Just(32)];
    let port = prop_oneof![Just(None), (1..4_u16).prop_map(Some)];
    let prefix = prop_oneof![
        6 => (0..16_u32, length).prop_map(|(low, length)| {
            IpNet::new(Ipv4Addr::from(0x0a00_0000 + low).into(), length).unwrap().trunc()
        }),
        1 => Just("::/0".parse().unwrap()),
        1 => Just("::ffff:10.0.0.1/128".parse().unwrap()),
    ];
    (prefix, port).prop_map(|(prefix, port)| Destination { prefix, port })
}

fn table(destinations: &[Destination]) -> PrefixTable<usize> {
    let mut table = PrefixTable::default();
    for (number, destination) in destinations.iter().enumerate() {
        *table.entry(destination) = Some(number + 1);
    }
    table
}

/// All that match, one by one: the longest prefix, then the port; of the very same, the last.
fn ranked(destinations: &[Destination], to: SocketAddr) -> Vec<(u8, bool, usize)> {
    let matches = |destination: &Destination| {
        let prefix = mapped(destination.prefix);
        host(to.ip(), prefix.prefix_len()) == prefix
            && destination.port.is_none_or(|port| port == to.port())
    };
    let numbered = destinations.iter().enumerate().filter(|(_, d)| matches(d));
    let mut all: Vec<_> =
        numbered.map(|(n, d)| (mapped_length(&d.prefix), d.port.is_some(), n + 1)).collect();
    all.sort_unstable();
    all
}

proptest! {
    #[test]
    fn the_most_specific_destination_is_found(
        destinations in prop::collection::vec(destination(), 0..30), low in 0..16_u32, port in 1..5_u16,
    ) {
        let to = SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + low), port));
        let table = table(&destinations);
        let ranked = ranked(&destinations, to);
        prop_assert_eq!(table.most_specific(to).copied(), ranked.last().map(|(_, _, number)| *number));
        let longest = |named: bool| {
            let of_kind = ranked.iter().filter(|(_, names_port, _)| *names_port == named);
            of_kind.max().map(|(length, _, number)| (u32::from(*length), number))
        };
        prop_assert_eq!(table.candidates(to), [longest(true), longest(false)]);
        // A name that resolves to here is meant by whatever is said of the address.
        let of_port = Destination { prefix: to.ip().into(), port: Some(port) };
        prop_assert_eq!(table.overlaps(&of_port), !ranked.is_empty());
        let of_any = Destination { prefix: to.ip().into(), port: None };
        let is_held = |d: &Destination| {
            let prefix = mapped(d.prefix);
            host(to.ip(), prefix.prefix_len()) == prefix
        };
        prop_assert_eq!(table.overlaps(&of_any), destinations.iter().any(is_held));
    }

    #[test]
    fn every_destination_is_listed_once(destinations in prop::collection::vec(destination(), 0..30)) {
        let table = table(&destinations).map(|number| number * 2);
        let mut listed: Vec<_> = table.destinations().map(|d| (mapped(d.prefix), d.port)).collect();
        listed.sort_unstable();
        let mut given: Vec<_> = destinations.iter().map(|d| (mapped(d.prefix), d.port)).collect();
        given.sort_unstable();
        given.dedup();
        prop_assert_eq!(listed, given);
    }
}
