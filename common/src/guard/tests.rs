use super::*;
use crate::verdict::Denial;
use proptest::prelude::*;

const ETH: u32 = 2;

fn v4(a: u8, b: u8, c: u8, d: u8) -> Address {
    Address::from_v4(u32::from_ne_bytes([a, b, c, d]))
}

fn any_address() -> impl Strategy<Value = Address> {
    prop_oneof![
        any::<[u32; 4]>().prop_map(Address::from_v6),
        any::<[u8; 4]>().prop_map(|[a, b, c, d]| v4(a, b, c, d)),
        any::<[u8; 3]>().prop_map(|[b, c, d]| v4(127, b, c, d)),
        Just(Address::LOOPBACK_V6),
        Just(v4(0, 0, 0, 0)),
        Just(Address::from_v6([0; 4])),
        Just(v4(10, 0, 1, 1)),
    ]
}

fn any_state() -> impl Strategy<Value = SocketState> {
    (0..14_u32).prop_map(SocketState::from_kernel)
}

fn any_route() -> impl Strategy<Value = Route> {
    prop_oneof![
        Just(Route::Direct),
        Just(Route::Translated),
        Just(Route::Encapsulated),
        Just(Route::Sourced),
        Just(Route::Unreadable),
    ]
}

fn any_departure() -> impl Strategy<Value = Departure> {
    (1..4_u32, any_state(), any::<bool>(), any_address(), any_address(), any_route()).prop_map(
        |(interface, state, is_confined, source, destination, route)| Departure {
            interface,
            state,
            is_confined,
            source,
            destination,
            route,
        },
    )
}

/// The truth table of ARCHITECTURE.md, row by row; the first that fits holds.
fn table(d: &Departure) -> Finding {
    let is_local = d.destination.is_loopback() || d.destination.is_unspecified();
    let rows = [
        (d.interface == 1, Finding::Pass),
        (d.is_confined, Finding::Drop(DropReason::Confined)),
        (d.source == d.destination, Finding::DropFromAny(DropReason::LoopbackAddress)),
        (d.state == SocketState::Listening, Finding::AskPort),
        (is_local, Finding::DropFromOutbound(DropReason::LoopbackAddress)),
        (d.route == Route::Sourced, Finding::DropFromOutbound(DropReason::SourceRouted)),
        (d.route == Route::Unreadable, Finding::DropFromOutbound(DropReason::Unreadable)),
        (d.state == SocketState::Opening, Finding::AskPolicy),
        (true, Finding::Pass),
    ];
    rows.into_iter().find(|(fits, _)| *fits).map(|(_, finding)| finding).unwrap()
}

proptest! {
    #[test]
    fn the_guard_is_its_truth_table(departure in any_departure()) {
        prop_assert_eq!(departure.finding(), table(&departure));
    }

    #[test]
    fn a_detour_survives_its_bits(route in any_route(), port: u16) {
        let detour = Detour { route, port };
        prop_assert_eq!(Detour::from_bits(detour.to_bits()), detour);
    }

    /// Whatever an address means: on another interface than loopback a confined socket sends nothing at all.
    #[test]
    fn nothing_of_a_confined_socket_passes_beyond_loopback(mut departure in any_departure()) {
        departure.is_confined = true;
        departure.interface = ETH;
        prop_assert_eq!(departure.finding(), Finding::Drop(DropReason::Confined));
    }

    /// Beyond loopback a packet passes unasked only if it opens nothing, goes where its socket's connection goes, and
    /// that is somewhere else.
    #[test]
    fn what_passes_unasked_is_harmless(departure in any_departure()) {
        if departure.interface != LOOPBACK && departure.finding() == Finding::Pass {
            prop_assert_eq!(departure.state, SocketState::Other);
            prop_assert!(!departure.destination.is_loopback());
            prop_assert!(!departure.destination.is_unspecified());
            prop_assert!(departure.source != departure.destination);
            prop_assert!(!matches!(departure.route, Route::Sourced | Route::Unreadable));
        }
    }
}

#[test]
fn a_translation_never_leads_to_a_protected_destination() {
    let unknown = Verdict::Deny(Denial::UnknownDestination);
    assert!(may_open(Verdict::Bypass, None));
    assert!(may_open(Verdict::Bypass, Some(Verdict::Bypass)));
    // What is on the bypass list under its own address may be translated to any that nobody protects.
    assert!(may_open(Verdict::Bypass, Some(unknown)));
    assert!(may_open(Verdict::Bypass, Some(Verdict::Deny(Denial::PlainDestination))));
    assert!(!may_open(Verdict::Bypass, Some(Verdict::Protect)));
    assert!(!may_open(Verdict::Bypass, Some(Verdict::Deny(Denial::LinkLocal))));
    assert!(!may_open(Verdict::Protect, None));
    assert!(!may_open(unknown, Some(Verdict::Bypass)));
}

proptest! {
    /// A translation changes the address or the port, and whatever it makes of them is not the agent's.
    #[test]
    fn only_what_comes_to_where_it_was_turned_to_passes(
        asked in any_address(), port in 15_001..15_065_u32, to in any_address(), other_port: u16, source_port: u16,
    ) {
        let asked = Endpoint { address: asked, port }.turned();
        let source = Endpoint { address: Address::LOOPBACK_V4, port: source_port.into() };
        let elsewhere = Endpoint { address: to, port: other_port.into() };
        prop_assert!(comes_to_the_agent(&asked, &asked, &source) || source == asked);
        prop_assert!(!comes_to_the_agent(&asked, &elsewhere, &source) || elsewhere == asked);
        prop_assert!(!comes_to_the_agent(&asked, &asked, &asked), "it would be its own peer");
    }
}

#[test]
fn codes_of_reasons_read_back() {
    for code in 1..=8 {
        assert_eq!(DropReason::from_code(code).map(|reason| reason as u32), Some(code));
    }
    assert_eq!(DropReason::from_code(0), None);
    assert_eq!(DropReason::from_code(9), None);
}
