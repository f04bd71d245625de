//! The access log names the rule that allowed a flow, or refused it.

use std::net::SocketAddr;

use sheath_tests::agent::Agent;
use sheath_tests::config::{Peer, spiffe_id};
use sheath_tests::pair::{Pair, SERVER_NETWORKS, Setting, client, living, say};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::Step;
use sheath_tests::status::Access;
use sheath_tests::world::{FAMILIES, Family};

const ALLOW: &str = "workloads[web].inbound.allow";

/// The usual scene, in which A names these at B's addresses, an entry for each.
fn pair(peers: &[&str]) -> Pair {
    Pair::with(Setting::Host, |a, _| {
        a.peers = peers.iter().map(|name| Peer::new(&SERVER_NETWORKS, &[name])).collect();
    })
}

/// The one line of an agent about flows to `to` that ended so.
#[track_caller]
fn line(agent: &Agent, to: SocketAddr, outcome: &str) -> Access {
    let to = to.to_string();
    let what = format!("{outcome} at {to}");
    agent.wait_for_access(&what, |line| line.destination == to && line.outcome == outcome)
}

#[test]
fn a_flow_names_the_rules_that_allow_it_on_either_side() {
    // The third entry is about another place, and more specific.
    let pair = Pair::with(Setting::Host, |a, _| {
        a.peers = vec![
            Peer::new(&SERVER_NETWORKS, &["db"]),
            Peer::new(&SERVER_NETWORKS, &["web"]),
            Peer::new(&["10.0.2.200/32"], &["web"]),
        ];
    });
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        let to = pair.target(family);
        // The second takes up the session of the first.
        for _ in 0..2 {
            let seen = pair.connect(to, &say("hello"));
            assert_eq!(seen.last().text, "hello", "{seen:?}");
            let source = seen.local.unwrap().to_string();
            let outbound = pair.agent_a.wait_for_access("A's flow", |line| line.source == source);
            let inbound = pair.agent_b.wait_for_access("B's flow", |line| line.source == source);
            assert_eq!((&*outbound.rule, &*inbound.rule), ("peers[1]", ALLOW), "{outbound:?}");
        }
    }
}

#[test]
fn a_server_that_is_refused_is_refused_by_the_entry_that_expects_another() {
    let pair = pair(&["db"]);
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        let to = pair.target(family);
        let seen = pair.connect(to, &say("hello"));
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
        let refused = line(&pair.agent_a, to, "denied");
        assert_eq!((&*refused.rule, refused.peer_id), ("peers[0]", spiffe_id("web")));
        assert!(refused.reason.contains("peers[0] does not name it"), "{}", refused.reason);
    }
}

#[test]
fn a_client_that_is_refused_is_refused_by_the_list_it_is_not_on() {
    let pair = Pair::with(Setting::Host, |_, b| {
        b.workloads[0].inbound.as_mut().unwrap().allow = vec![spiffe_id("somebody-else")];
    });
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        let to = pair.target(family);
        let seen = pair.connect(to, &say("hello"));
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
        let refused = line(&pair.agent_b, to, "denied");
        assert_eq!((&*refused.rule, refused.peer_id), (ALLOW, spiffe_id("client")));
        // On the other side the server was as it should be.
        let to = to.to_string();
        let lost = pair.agent_a.wait_for_access("A's flow", |line| line.destination == to);
        assert_eq!(lost.rule, "peers[0]", "{lost:?}");
    }
}

#[test]
fn a_connect_that_is_refused_names_the_mode_and_nothing_where_no_rule_refuses() {
    let pair = pair(&["web"]);
    for to in ["10.0.9.9:80", "[fd00::9:9]:80"] {
        let to: SocketAddr = to.parse().unwrap();
        let seen = pair.connect(to, &say("hello"));
        assert_eq!(seen.error, Some(libc::EPERM), "{seen:?}");
        let denied = line(&pair.agent_a, to, "denied");
        assert_eq!(denied.rule, "workloads[client].outbound.mode", "{denied:?}");
    }
    // The agent's own place is for nobody, whatever is configured.
    let agents: SocketAddr = "127.0.0.1:15001".parse().unwrap();
    let seen = pair.connect(agents, &say("hello"));
    assert_eq!(seen.error, Some(libc::EPERM), "{seen:?}");
    assert_eq!(line(&pair.agent_a, agents, "denied").rule, "built-in");
}

#[test]
fn what_passes_a_permissive_port_passes_by_its_mode() {
    let pair = Pair::with(Setting::Host, |_, b| {
        b.workloads[0].inbound.as_mut().unwrap().mode = "permissive";
    });
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let stranger = pair.world.a.host("stranger");
    let seen = probe::run(&stranger, &client(pair.target(Family::V4), &say("hello")));
    assert_eq!(seen.last().text, "hello", "{seen:?}");
    let passed = line(&pair.agent_b, pair.target(Family::V4), "ok");
    assert_eq!((&*passed.protection, &*passed.rule), ("plaintext", "workloads[web].inbound.mode"));
}

#[test]
fn a_session_that_is_revoked_names_the_rule_that_names_its_peer_no_more() {
    let mut pair = pair(&["web"]);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let to = pair.target(Family::V4);
    let mut living = Probe::start(&pair.client, &client(to, &living()));
    living.wait_paused();
    let output = pair.agent_a.reload(|a| {
        a.peers.insert(0, Peer::new(&["192.0.2.0/24"], &["web"]));
        a.peers[1].spiffe_ids = vec![spiffe_id("db")];
    });
    assert!(output.status.success(), "{output:?}");
    let revoked = line(&pair.agent_a, to, "revoked");
    assert_eq!(revoked.rule, "peers[1]", "{revoked:?}");
    living.go();
    assert_eq!(living.connection().ended_by(), Some(libc::ECONNRESET));
}
