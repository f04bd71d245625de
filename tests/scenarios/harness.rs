//! The judge must be able to find someone guilty: without an agent, the tap sees everything.

use sheath_tests::ca::Ca;
use sheath_tests::config::spiffe_id;
use sheath_tests::dissect::tls;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, any, client, say, server};
use sheath_tests::probe::{self, Probe};
use sheath_tests::rogue::{Dial, End, Face, RogueServer};
use sheath_tests::script::{Job, Step};
use sheath_tests::tap::Tap;
use sheath_tests::tricks::{Scene, Trick};
use sheath_tests::world::{FAMILIES, WIRE, World};

#[test]
fn the_tap_sees_every_trick_when_no_agent_runs() {
    let world = World::new();
    let (workload, bystander) = (world.a.host("client"), world.a.host("bystander"));
    let elsewhere = world.b.host("web");
    for family in FAMILIES {
        let echo = Probe::start(&elsewhere, &server(any(family, PORT), &[Step::Echo]));
        let scene = Scene {
            client: &workload,
            bystander: &bystander,
            source: world.a.addresses.of(family),
            device: WIRE,
            dir: world.dir.path(),
        };
        for trick in Trick::ALL.into_iter().filter(|trick| trick.exists_for(family)) {
            let tap = world.tap();
            let marker = marker();
            let seen = scene.attempt(trick, world.b.addresses.at(family, PORT), &marker);
            assert_eq!(seen.ended_by(), None, "{trick:?} {family:?}: {seen:?}");
            assert_eq!(seen.last().text, marker, "{trick:?} {family:?}");
            // There and back.
            assert_eq!(tap.sightings(&marker), 2, "{trick:?} {family:?}");
        }
        drop(echo);
    }
}

#[test]
fn the_tap_finds_a_marker_split_over_packets() {
    let world = World::new();
    let (from, to) = (world.a.host("client"), world.b.host("web"));
    let tap = world.tap();
    let marker = marker();
    let (head, tail) = marker.split_at(10);
    let target = world.b.addresses.at(FAMILIES[0], PORT);
    let mut sink = Probe::start(
        &to,
        &server(
            any(FAMILIES[0], PORT),
            &[Step::Receive(10), Step::Send("!".into()), Step::ReceiveToEnd],
        ),
    );
    let steps = [Step::Send(head.into()), Step::Receive(1), Step::Send(tail.into())];
    assert_eq!(probe::run(&from, &client(target, &steps)).ended_by(), None);
    assert_eq!(sink.connection().ended_by(), None);
    assert_eq!(tap.sightings(&marker), 1);
}

#[test]
fn the_tap_tells_plaintext_from_tls() {
    let world = World::new();
    let (from, to) = (world.a.host("client"), world.b.host("web"));
    let tap = world.tap();
    let _echo = Probe::start(&to, &server(any(FAMILIES[0], PORT), &[Step::Echo]));
    let target = world.b.addresses.at(FAMILIES[0], PORT);
    probe::run(&from, &client(target, &say("no TLS")));
    let streams = tap.streams_to(PORT);
    assert_eq!(streams.len(), 1);
    assert_eq!(streams[0].bytes, b"no TLS");
    assert!(streams[0].tls_records().is_err());
}

#[test]
fn pods_reach_one_another_through_their_nodes() {
    let world = World::new();
    let (a, b) = (world.a.pod(2), world.b.pod(2));
    let (from, to) = (world.a.host("client"), world.b.host("web"));
    let from = sheath_tests::place::Place::new(&a.netns, &from.cgroup);
    let to = sheath_tests::place::Place::new(&b.netns, &to.cgroup);
    for family in FAMILIES {
        let tap = Tap::new(&world.b.netns, WIRE);
        let mut echo = Probe::start(&to, &server(any(family, PORT), &[Step::Echo]));
        let target = b.addresses.at(family, PORT);
        let seen = probe::run(&from, &client(target, &say("hello")));
        assert_eq!(seen.last().text, "hello", "{seen:?}");
        assert_eq!(seen.peer, Some(target));
        let served = echo.connection();
        assert_eq!(served.accepted, seen.local);
        assert_eq!(served.local, Some(target));
        assert_eq!(tap.attempts(PORT), [seen.local.unwrap()]);
    }
}

#[test]
fn a_crowd_and_a_churn_are_served_without_an_agent() {
    let _heavy = sheath_tests::serial::heavy();
    let world = World::new();
    let (from, to) = (world.a.host("client"), world.b.host("web"));
    let _echo = Probe::start(&to, &server(any(FAMILIES[0], PORT), &[Step::Echo]));
    let target = world.b.addresses.at(FAMILIES[0], PORT);
    for job in
        [Job::Crowd { to: target, count: 2000 }, Job::Churn { to: target, count: 3000, threads: 8 }]
    {
        let tally = Probe::start(&from, &job).tally(sheath_tests::wait::GENEROUS);
        assert!(tally.errors.is_empty(), "{job:?}: {tally:?}");
    }
}

/// The strangers of the other tests speak proper mutual TLS, and tell an end from a truncation.
#[test]
fn rogues_understand_one_another() {
    let world = World::new();
    let ca = Ca::stranger("example.org");
    let (server_leaf, client_leaf) = (ca.issue(&spiffe_id("web")), ca.issue(&spiffe_id("client")));
    let to = world.b.addresses.at(FAMILIES[0], PORT);
    for (end, cut) in [(End::CloseNotify, false), (End::Truncate, true)] {
        let tap = world.tap();
        let face = Face::Tls(server_leaf.clone());
        let server = RogueServer::start(&world.b.netns, to, face, "answer", end);
        let netns = &world.a.netns;
        let (leaf, alpn) = (Some(&client_leaf), &["one", "two"][..]);
        let answer = Dial { netns, to, leaf, alpn: &[], send: "question", end }.run();
        let session = &server.sessions(1)[0];
        assert_eq!(answer.received, "answer", "{end:?}: {answer:?}");
        assert_eq!(answer.error.is_some(), cut, "{end:?}: {answer:?}");
        assert_eq!(session.received, b"question", "{end:?}: {session:?}");
        assert_eq!(session.error.is_some(), cut, "{end:?}: {session:?}");
        assert!(session.client_certificate.is_some());

        assert_ciphertext(&tap, PORT, "question");
        assert_eq!(tls::alpn_offered(&tap.streams_to(PORT)[0].bytes), None);
        Dial { netns, to, leaf: None, alpn, send: "", end }.run();
        assert!(server.sessions(2)[1].client_certificate.is_none());
        let offered = tls::alpn_offered(&tap.streams_to(PORT)[1].bytes);
        assert_eq!(offered.unwrap_or_default(), alpn);
    }
}
