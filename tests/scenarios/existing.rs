//! What becomes of connections that are older than their workload's enrolment.

use std::sync::Arc;

use sheath_tests::agent::Agent;
use sheath_tests::config::Workload;
use sheath_tests::netns::NetNs;
use sheath_tests::pair::{PORT, Pair, Setting, any, client, configs, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Connection, Job, ListenerOptions, Step};
use sheath_tests::status::Unprotected;
use sheath_tests::world::{FAMILIES, Family, World};

/// A port of node B where everyone is taken at their word.
const OPEN_PORT: u16 = 9090;

/// Plaintext connections of the client and of the server workload, made before any agent runs.
struct Old {
    outgoing: Probe,
    outgoing_server: Probe,
    incoming: Probe,
    incoming_server: Probe,
    client: Place,
    world: World,
}

impl Old {
    fn new(family: Family) -> Self {
        let world = World::new();
        let (client_place, server_place) = (world.a.host("client"), world.b.host("web"));
        let listener = |netns: &Arc<NetNs>, place: &Place, port| {
            let place = Place::new(netns, &place.cgroup);
            Probe::start(&place, &server(any(family, port), &[Step::Echo]))
        };
        let (open, stranger) = (world.b.host("open"), world.a.host("stranger"));
        let outgoing_server = listener(&world.b.netns, &open, OPEN_PORT);
        let incoming_server = listener(&world.b.netns, &server_place, PORT);
        let steps = |text: &str| {
            let mut steps = vec![Step::Send("early".into()), Step::Receive(5), Step::Pause];
            steps.extend(say(text));
            steps
        };
        let start = |place: &Place, port, text: &str| {
            let to = world.b.addresses.at(family, port);
            let mut probe = Probe::start(place, &client(to, &steps(text)));
            probe.wait_paused();
            probe
        };
        Self {
            outgoing: start(&client_place, OPEN_PORT, "late"),
            incoming: start(&stranger, PORT, "late"),
            outgoing_server,
            incoming_server,
            client: client_place,
            world,
        }
    }

    fn agents(&self, existing: &'static str) -> (Agent, Agent) {
        let (mut a, mut b) = configs(&self.world, Setting::Host);
        a.workloads[0].existing = Some(existing);
        b.workloads[0].existing = Some(existing);
        (Agent::start(&self.world, &self.world.a, a), Agent::start(&self.world, &self.world.b, b))
    }
}

#[test]
fn existing_connections_are_kept_and_listed_until_they_close() {
    for family in FAMILIES {
        let mut old = Old::new(family);
        let from_a = old.outgoing_server.accepted();
        let from_stranger = old.incoming_server.accepted();
        let (agent_a, agent_b) = old.agents("keep");
        let outgoing =
            Unprotected { local: from_a, remote: old.world.b.addresses.at(family, OPEN_PORT) };
        let incoming =
            Unprotected { local: old.world.b.addresses.at(family, PORT), remote: from_stranger };
        agent_a.wait_for_status("the old outbound connection", |status| {
            status.workload("client").unprotected == [outgoing]
        });
        agent_b.wait_for_status("the old inbound connection", |status| {
            status.workload("web").unprotected == [incoming]
        });

        // New ones are protected all the same.
        let target = old.world.b.addresses.at(family, PORT);
        let new = probe::run(&old.client, &client(target, &say("new")));
        assert_eq!(new.last().text, "new", "{family:?}: {new:?}");

        old.outgoing.go();
        old.incoming.go();
        for probe in [&mut old.outgoing, &mut old.incoming] {
            let seen = probe.connection();
            assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, "late"), "{seen:?}");
        }
        agent_a.wait_for_status("the end of the old outbound connection", |status| {
            status.workload("client").unprotected.is_empty()
        });
        agent_b.wait_for_status("the end of the old inbound connection", |status| {
            status.workload("web").unprotected.is_empty()
        });
    }
}

#[test]
fn existing_connections_are_reset_where_configured() {
    for family in FAMILIES {
        let mut old = Old::new(family);
        let (_agent_a, _agent_b) = old.agents("reset");
        // ECONNABORTED is what the kernel tells the end whose socket it destroyed.
        let is_cut = |seen: &Connection| {
            matches!(seen.ended_by(), Some(libc::ECONNRESET | libc::ECONNABORTED | libc::EPIPE))
        };
        for end in [old.outgoing_server.connection(), old.incoming_server.connection()] {
            assert!(is_cut(&end), "{family:?}: {end:?}");
        }
        old.outgoing.go();
        old.incoming.go();
        for probe in [&mut old.outgoing, &mut old.incoming] {
            let seen = probe.connection();
            assert!(is_cut(&seen), "{family:?}: {seen:?}");
        }
        let target = old.world.b.addresses.at(family, PORT);
        let new = probe::run(&old.client, &client(target, &say("new")));
        assert_eq!(new.last().text, "new", "{family:?}: {new:?}");
    }
}

/// Connections that the application has not accepted yet belong to no process, but to the workload.
#[test]
fn existing_connections_in_the_accept_queue_are_reset() {
    for family in FAMILIES {
        let world = World::new();
        let (web, stranger) = (world.b.host("web"), world.a.host("stranger"));
        let socket = ListenerOptions { late: true, ..ListenerOptions::default() };
        let job =
            Job::Server { listen: any(family, PORT), socket, steps: vec![Step::ReceiveToEnd] };
        let mut app = Probe::start(&web, &job);
        let steps = [Step::Send("early".into()), Step::Pause, Step::ReceiveToEnd];
        let to = world.b.addresses.at(family, PORT);
        let mut early = Probe::start(&stranger, &client(to, &steps));
        early.wait_paused();

        let mut config = configs(&world, Setting::Host).1;
        config.workloads[0].existing = Some("reset");
        let agent = Agent::start(&world, &world.b, config);
        agent.wait_enrolled("web", &web);
        early.go();
        let seen = early.connection();
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{family:?}: {seen:?}");
        app.go();
        // The kernel hands it out all the same; the application finds it cut.
        let handed = app.connection();
        assert_ne!(handed.ended_by(), None, "{family:?}: {handed:?}");
    }
}

/// Policy leaves it as it is, so there is nothing to complain about, however old it is and however
/// many ports of its workload are protected.
#[test]
fn a_bypassed_connection_is_not_called_unprotected() {
    for existing in ["keep", "reset"] {
        let mut pair = Pair::with(Setting::Pods, |a, _| {
            let cgroup = format!("{}/client*", a.capture.cgroup);
            a.workloads[0] = Workload::new("client", &cgroup)
                .inbound("strict", None, &["web"])
                .outbound("require", &["10.0.92.0/24", "fd00::92:0/112"]);
            a.workloads[0].existing = Some(existing);
        });
        let open = pair.world.b.host("open");
        let _open = FAMILIES
            .map(|family| Probe::start(&open, &server(any(family, OPEN_PORT), &[Step::Echo])));
        let mut steps = vec![Step::Pause];
        steps.extend(say("untouched"));
        let mut bypassed = FAMILIES.map(|family| {
            let to = pair.world.b.extra.at(family, OPEN_PORT);
            let mut probe = Probe::start(&pair.client, &client(to, &steps));
            probe.wait_paused();
            probe
        });
        assert_eq!(pair.agent_a.status().workload("client").unprotected, [], "{existing}");
        // The next agent finds them older than itself.
        pair.agent_a.kill();
        pair.agent_a.launch();
        pair.agent_a.wait_enrolled("client", &pair.client);
        assert_eq!(pair.agent_a.status().workload("client").unprotected, [], "{existing}");
        for probe in &mut bypassed {
            probe.go();
            let seen = probe.connection();
            assert_eq!(seen.last().text, "untouched", "{existing}: {seen:?}");
        }
    }
}
