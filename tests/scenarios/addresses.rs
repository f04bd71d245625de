//! Promises 7 and 8: both applications see the true 4-tuple, and so does the wire.

use sheath_tests::pair::{PORT, Pair, SETTINGS, Setting, any, say};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, ListenerOptions, Socket, Step};
use sheath_tests::world::{FAMILIES, Family};

#[test]
fn both_applications_see_the_four_tuple_of_the_wire() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        for family in FAMILIES {
            let tap = pair.world.tap();
            let mut server = pair.serve(family, &[Step::Echo]);
            let target = pair.target(family);
            let seen = pair.connect(target, &say("hello"));
            let served = server.connection();
            let context = format!("{setting:?} {family:?}: {seen:?} {served:?}");

            assert_eq!(seen.peer, Some(target), "the client's getpeername: {context}");
            let source = seen.local.expect("the client's getsockname");
            assert_eq!(source.ip(), pair.client_addresses.of(family), "{context}");
            assert_eq!(served.accepted, Some(source), "the server's accept: {context}");
            assert_eq!(served.peer, Some(source), "the server's getpeername: {context}");
            assert_eq!(served.local, Some(target), "the server's getsockname: {context}");
            assert_eq!(tap.attempts(PORT), [source], "the wire: {context}");
        }
    }
}

#[test]
fn a_bound_source_is_kept() {
    let pair = Pair::host();
    for family in FAMILIES {
        let tap = pair.world.tap();
        let mut server = pair.serve(family, &[Step::Echo]);
        // An address the kernel would not have chosen.
        let source = pair.world.a.extra.at(family, 43_210);
        let socket = Socket { bind: Some(source), ..Socket::default() };
        let job = Job::Client { socket, to: pair.target(family), steps: say("hello") };
        let seen = probe::run(&pair.client, &job);
        assert_eq!((seen.ended_by(), seen.local), (None, Some(source)), "{family:?}: {seen:?}");
        assert_eq!(server.connection().accepted, Some(source), "{family:?}");
        assert_eq!(tap.attempts(PORT), [source], "{family:?}");
    }
}

/// An IPv6 socket that speaks IPv4 sees mapped addresses on both sides, as without Sheath.
#[test]
fn mapped_sockets_see_mapped_addresses() {
    for setting in [Setting::Host, Setting::Pods] {
        let pair = Pair::new(setting);
        let job = Job::Server {
            listen: any(Family::V6, PORT),
            socket: ListenerOptions { dual_stack: true, ..ListenerOptions::default() },
            steps: vec![Step::Echo],
        };
        let mut server = Probe::start(&pair.server, &job);
        let target = pair.target(Family::V4);
        let socket = Socket { mapped: true, ..Socket::default() };
        let job = Job::Client { socket, to: target, steps: say("hello") };
        let seen = probe::run(&pair.client, &job);
        let served = server.connection();
        let context = format!("{setting:?}: {seen:?} {served:?}");
        let mapped = |address: std::net::SocketAddr| match address.ip() {
            std::net::IpAddr::V4(v4) => (v4.to_ipv6_mapped(), address.port()).into(),
            std::net::IpAddr::V6(_) => address,
        };
        assert_eq!(seen.ended_by(), None, "{context}");
        assert_eq!(seen.peer, Some(mapped(target)), "{context}");
        let source = seen.local.unwrap();
        assert_eq!(source, mapped((pair.client_addresses.v4, source.port()).into()), "{context}");
        assert_eq!(served.accepted, Some(source), "{context}");
        assert_eq!(served.peer, Some(source), "{context}");
        assert_eq!(served.local, Some(mapped(target)), "{context}");
    }
}
