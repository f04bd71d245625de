//! Promises 2, 4 and 5: a peer with a certificate of another identity, another trust domain, an
//! expired one, or none, gets nothing through, in both directions. Each kind is tried next to the
//! right certificate, which does get through.

use std::net::SocketAddr;

use sheath_tests::config::spiffe_id;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, Setting, say};
use sheath_tests::rogue::{Dial, End, Face, RogueServer, credentials};
use sheath_tests::script::Step;
use sheath_tests::world::{FAMILIES, Family};

/// A port of the server's node where no workload lives: whoever listens there is a rogue.
const ROGUE_PORT: u16 = 9443;

#[test]
fn a_rogue_server_gets_nothing() {
    let pair = Pair::host();
    for family in FAMILIES {
        let listen = pair.world.b.addresses.at(family, ROGUE_PORT);
        for credential in credentials(pair.world.ca(), &spiffe_id("web")) {
            let face = credential.leaf.map_or(Face::Plain, Face::Tls);
            let tap = pair.world.tap();
            let marker = marker();
            let server =
                RogueServer::start(&pair.world.b.netns, listen, face, "trust me", End::CloseNotify);
            let seen = pair.connect(listen, &say(&marker));

            let context = format!("{} {family:?}", credential.name);
            assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{context}: {seen:?}");
            assert_eq!(seen.last().text, "", "{context}");
            for session in server.sessions(1) {
                let received = String::from_utf8_lossy(&session.received).into_owned();
                assert!(!received.contains(&marker), "{context}: {received}");
            }
            assert_eq!(tap.sightings(&marker), 0, "{context}");
            expect_failure_line(&pair, listen, &context);
        }
        right_server_is_served(&pair, listen);
    }
}

/// The same server with the right certificate: what the refusals above are worth.
fn right_server_is_served(pair: &Pair, listen: SocketAddr) {
    let leaf = pair.world.ca().issue(&spiffe_id("web"));
    let face = Face::Tls(leaf);
    let server = RogueServer::start(&pair.world.b.netns, listen, face, "hello", End::CloseNotify);
    let seen = pair.connect(listen, &say("hello, web"));
    assert_eq!(seen.ended_by(), None, "{seen:?}");
    assert_eq!(seen.last().text, "hello");
    let session = &server.sessions(1)[0];
    assert_eq!(session.received, b"hello, web");
    assert!(session.client_certificate.is_some(), "mutual TLS");
    assert_eq!(session.error, None);
}

fn expect_failure_line(pair: &Pair, destination: SocketAddr, context: &str) {
    let line = pair.agent_a.wait_for_access(context, |line| {
        line.destination == destination.to_string() && line.outcome != "ok"
    });
    assert!(!line.reason.is_empty(), "{context}: {line:?}");
    assert_eq!(line.workload, "client", "{context}");
}

#[test]
fn a_rogue_client_gets_nothing_from_a_host_workload() {
    rogue_client_gets_nothing(Setting::Host, Family::V4);
}

#[test]
fn a_rogue_client_gets_nothing_from_a_pod() {
    rogue_client_gets_nothing(Setting::Pods, Family::V6);
}

fn rogue_client_gets_nothing(setting: Setting, family: Family) {
    let pair = Pair::new(setting);
    let target = pair.target(family);
    let mut echo = pair.serve(family, &[Step::Send("a banner".into()), Step::Echo]);
    let mut refused = 0;
    for credential in credentials(pair.world.ca(), &spiffe_id("client")) {
        for alpn in [&[][..], &["sheath/0"]] {
            let answer = Dial {
                netns: &pair.world.a.netns,
                to: target,
                leaf: credential.leaf.as_ref(),
                alpn,
                send: "let me in",
                end: End::CloseNotify,
            }
            .run();
            refused += 1;
            assert_eq!(answer.received, "", "{} {alpn:?}", credential.name);
            assert!(answer.error.is_some(), "{} {alpn:?}: a clean end", credential.name);
        }
    }
    // The right identity is served, with the agents' ALPN and as a standard mTLS client.
    let leaf = pair.world.ca().issue(&spiffe_id("client"));
    for alpn in [&[][..], &["sheath/0"]] {
        let answer = Dial {
            netns: &pair.world.a.netns,
            to: target,
            leaf: Some(&leaf),
            alpn,
            send: "let me in",
            end: End::CloseNotify,
        }
        .run();
        assert_eq!(answer.received, "a bannerlet me in", "{alpn:?}: {answer:?}");
        assert_eq!(answer.error, None, "{alpn:?}");
        echo.accepted();
    }
    assert_eq!(echo.pending(), 0, "a refused client reached the application");

    let what = "a line for every refused client";
    sheath_tests::wait::wait_until(what, sheath_tests::wait::GENEROUS, || {
        let lines = pair.agent_b.access();
        let lines = lines.iter().filter(|line| line.direction == "inbound" && line.outcome != "ok");
        lines.filter(|line| !line.reason.is_empty()).count() >= refused
    });
}

#[test]
fn a_plaintext_client_gets_nothing_from_a_strict_port() {
    let pair = Pair::host();
    let stranger = pair.world.a.host("stranger");
    for family in FAMILIES {
        let target = pair.target(family);
        let mut echo = pair.serve(family, &[Step::Send("a banner".into()), Step::Echo]);
        let job = sheath_tests::pair::client(target, &say("let me in"));
        let seen = sheath_tests::probe::run(&stranger, &job);
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
        // A TLS alert may come back, but nothing of the application's.
        assert!(!seen.last().text.contains("banner"), "{seen:?}");
        assert_eq!(pair.connect(target, &say("hello")).last().text, "a bannerhello");
        echo.accepted();
        assert_eq!(echo.pending(), 0, "the plaintext client reached the application");
    }
}

/// Both agents work, but policy does not want these two to meet.
#[test]
fn a_workload_that_is_not_allowed_gets_nothing() {
    let pair = Pair::with(Setting::Host, |_, b| {
        b.workloads[0].inbound.as_mut().unwrap().allow = vec![spiffe_id("somebody-else")];
    });
    let mut echo = pair.serve(Family::V4, &[Step::Echo]);
    let seen = pair.connect(pair.target(Family::V4), &say("hello"));
    assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
    let line = pair.agent_b.wait_for_access("the refusal", |line| line.is("inbound", "denied"));
    assert_eq!(line.peer_id, spiffe_id("client"), "{line:?}");
    assert_eq!(echo.pending(), 0);
}

/// The agent of the client expects somebody else at that address.
#[test]
fn a_server_that_is_not_expected_gets_nothing() {
    let pair = Pair::with(Setting::Host, |a, _| {
        a.peers[0].spiffe_ids = vec![spiffe_id("somebody-else")];
    });
    let mut echo = pair.serve(Family::V4, &[Step::Echo]);
    let seen = pair.connect(pair.target(Family::V4), &say("hello"));
    assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
    let target = pair.target(Family::V4).to_string();
    let line = pair.agent_a.wait_for_access("the refusal", |line| line.destination == target);
    assert_ne!(line.outcome, "ok", "{line:?}");
    assert!(!line.reason.is_empty(), "{line:?}");
    assert_eq!(line.destination, format!("{}:{PORT}", pair.world.b.addresses.v4));
    // The application may have been dialled before the client's agent turned away, but no byte
    // of the client's has come.
    for _ in 0..echo.pending() {
        assert_eq!(echo.connection().last().bytes, 0);
    }
}
