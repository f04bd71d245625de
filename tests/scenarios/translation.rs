//! Between two agents something may lead a connection elsewhere than it was dialled: a load balancer, which has to be able
//! to choose for each flow, or an attacker, who gains nothing by it.

use std::sync::{Arc, Mutex};

use sheath_tests::balancer::Balancer;
use sheath_tests::config::spiffe_id;
use sheath_tests::pair::{PORT, Pair, SETTINGS, Setting, any, client, say, send, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::rogue::frames::{Called, FlowServer, GO_AWAY, frame};
use sheath_tests::script::{Job, Step};
use sheath_tests::status::Status;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family};

/// A second protected port of the server.
const OTHER_PORT: u16 = 9090;

/// `GO_AWAY`'s code for an address that is not the server's own (docs/wire.md).
const VIRTUAL: u8 = 5;

/// The usual scene, whose client also expects the server at an address of its own node's, where somebody else answers.
fn scene(setting: Setting, published: &[&str]) -> Pair {
    Pair::with(setting, |a, b| {
        let elsewhere = ["10.0.91.9/32", "fd00::91:9/128"];
        a.peers[0].matches.extend(elsewhere.map(str::to_owned));
        let inbound = b.workloads[0].inbound.as_mut().unwrap();
        if let Some(ports) = &mut inbound.ports {
            ports.push(OTHER_PORT);
        }
        inbound.published_ports = published.iter().map(ToString::to_string).collect();
    })
}

#[test]
fn a_client_that_is_led_to_another_port_of_the_same_identity_is_refused() {
    for setting in SETTINGS {
        let pair = scene(setting, &[]);
        let netns = &pair.world.a.netns;
        for family in FAMILIES {
            let mut app = pair.serve(family, &[Step::Echo]);
            let steps = [send("not for you"), Step::Echo];
            let mut other = Probe::start(&pair.server, &server(any(family, OTHER_PORT), &steps));
            let dialled = pair.world.a.extra.at(family, PORT);
            let elsewhere = pair.server_addresses.at(family, OTHER_PORT);
            let balancer = Balancer::start(netns, dialled, &[elsewhere]);
            let seen = pair.connect(dialled, &say("hello"));
            assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{setting:?} {seen:?}");
            assert_eq!(seen.last().text, "", "{setting:?} {seen:?}");
            assert_eq!(other.pending(), 0, "{setting:?}: the application was reached");
            let line = pair.agent_b.wait_for_access("the flow", |line| {
                line.direction == "inbound" && line.destination == elsewhere.to_string()
            });
            assert_eq!((line.outcome.as_str(), line.stage.as_str()), ("denied", "policy"));
            assert!(line.reason.contains("publishedPorts") && line.reason.contains("8080:9090"));
            // Another address alone is what load balancers are for.
            balancer.lead_to(&[pair.target(family)]);
            let seen = pair.connect(dialled, &say("hello"));
            assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, "hello"), "{seen:?}");
            assert_eq!(app.connection().local, Some(pair.target(family)));
        }
    }
}

#[test]
fn a_published_port_leads_to_the_port_that_it_is_published_for_and_to_no_other() {
    const PUBLISHED: u16 = 80;
    let pair = scene(Setting::Pods, &["80:8080"]);
    for family in FAMILIES {
        let _app = pair.serve(family, &[Step::Echo]);
        let _other = Probe::start(&pair.server, &server(any(family, OTHER_PORT), &[Step::Echo]));
        let dialled = pair.world.a.extra.at(family, PUBLISHED);
        let balancer = Balancer::start(&pair.world.a.netns, dialled, &[pair.target(family)]);
        let seen = pair.connect(dialled, &say("hello"));
        assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, "hello"), "{seen:?}");
        balancer.lead_to(&[pair.server_addresses.at(family, OTHER_PORT)]);
        let seen = pair.connect(dialled, &say("hello"));
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
    }
}

#[test]
fn each_flow_to_a_virtual_address_goes_where_the_balancer_leads_it() {
    const FLOWS: usize = 6;
    let pair = scene(Setting::Pods, &[]);
    let pod = pair.world.b.pod(3);
    let second = Place::new(&pod.netns, &pair.world.b.cgroup.child("web2"));
    let _resident = Probe::start(&second, &Job::Idle);
    pair.agent_b.wait_enrolled("web", &second);
    for (round, family) in FAMILIES.into_iter().enumerate() {
        let replica = |place: &Place, name: &str| {
            Probe::start(place, &server(any(family, PORT), &[send(name), Step::ReceiveToEnd]))
        };
        let _apps = [replica(&pair.server, "one"), replica(&second, "two")];
        let backends = [pair.target(family), pod.addresses.at(family, PORT)];
        let virtual_address = pair.world.a.extra.at(family, PORT);
        let balancer = Balancer::start(&pair.world.a.netns, virtual_address, &backends);
        let flows = |count: usize| -> Vec<String> {
            (0..count)
                .map(|_| {
                    let steps = [Step::EndSending, Step::ReceiveToEnd];
                    let seen = probe::run(&pair.client, &client(virtual_address, &steps));
                    assert_eq!(seen.ended_by(), None, "{seen:?}");
                    seen.last().text.clone()
                })
                .collect()
        };
        let served = flows(FLOWS);
        assert_eq!(served, ["one", "two"].repeat(FLOWS / 2), "{family:?}");
        // One is taken out: nothing goes there any more.
        balancer.lead_to(&backends[1..]);
        assert_eq!(flows(FLOWS), vec!["two"; FLOWS], "{family:?}");
        pair.agent_a.wait_for_status("no session kept", |status| {
            status.is_idle() && status.idle_sessions <= round as u64
        });
        // By its own address, a session with the same server is kept as ever.
        for _ in 0..2 {
            let seen = pair.connect(backends[0], &[Step::EndSending, Step::ReceiveToEnd]);
            assert_eq!(seen.last().text, "one", "{seen:?}");
            pair.agent_a.wait_for_status("the end of the flow", Status::is_idle);
        }
        assert_eq!(pair.agent_a.status().counter("sessions_reused"), round as u64 + 1);
    }
}

/// Once a server has said that an address is not its own, no session to it is kept: the client does not wait to be told
/// again.
#[test]
fn a_client_remembers_that_an_address_is_virtual() {
    const FLOWS: usize = 4;
    let pair = Pair::host();
    let leaf = pair.world.ca().issue(&spiffe_id("web"));
    let ends = Arc::new(Mutex::new(0));
    let _server = FlowServer::start(&pair.world.b.netns, any(Family::V4, 7070), &leaf, {
        let ends = ends.clone();
        move |number, called: &mut Called| {
            assert!(called.echo());
            if number == 0 {
                called.send(&frame(GO_AWAY, &[VIRTUAL]));
            }
            called.wait_end();
            *ends.lock().unwrap() += 1;
        }
    });
    let to = pair.world.b.addresses.at(Family::V4, 7070);
    for number in 1..=FLOWS {
        let seen = pair.connect(to, &say("hello"));
        assert_eq!(seen.last().text, "hello", "{seen:?}");
        // Long before the session would have been idle for too long.
        wait::wait_until("the end of the session", GENEROUS, || *ends.lock().unwrap() == number);
    }
    let status = pair.agent_a.wait_for_status("no session", Status::is_idle);
    assert_eq!((status.idle_sessions, status.counter("sessions_reused")), (0, 0));
}
