//! Promise 1 during enrolment: a workload whose cgroup or first process appears after the agent
//! started is protected from its first instant. And what becomes of connections that are older
//! than their workload's enrolment.

use sheath_tests::agent::Agent;
use sheath_tests::hammer::Hammer;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::netns::NetNs;
use sheath_tests::pair::{PORT, Pair, Setting, any, client, configs, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Connection, Event, Job, Step, Try};
use sheath_tests::status::Unprotected;
use sheath_tests::wait::GENEROUS;
use sheath_tests::world::{FAMILIES, Family, World};

/// A port of node B where everyone is taken at their word: whatever gets out arrives.
const OPEN_PORT: u16 = 9090;

const NEWBORNS: usize = 15;
const TRIES: usize = 20;

#[test]
fn a_new_cgroups_first_connections_are_not_in_plaintext() {
    for family in FAMILIES {
        let world = World::new();
        let _agent = Agent::start(&world, &world.a, configs(&world, Setting::Host).0);
        let open = server(any(family, OPEN_PORT), &[Step::Echo]);
        let _open = Probe::start(&world.b.host("open"), &open);
        let tap = world.tap();
        let secret = marker();
        let nursery = world.a.host("nursery");
        for number in 0..NEWBORNS {
            let tries = newborn(&world, &nursery, family, &format!("client-{number}"), &secret);
            assert!(tries.iter().all(|attempt| attempt.error.is_some()), "{number}: {tries:?}");
            assert_eq!(tap.sightings(&secret), 0, "{number}: plaintext on the wire");
        }
    }
}

/// The same newborns where no agent runs: they do get through.
#[test]
fn without_an_agent_a_new_cgroups_first_connections_are_seen() {
    let world = World::new();
    let open = server(any(Family::V4, OPEN_PORT), &[Step::Echo]);
    let _open = Probe::start(&world.b.host("open"), &open);
    let tap = world.tap();
    let secret = marker();
    let tries = newborn(&world, &world.a.host("nursery"), Family::V4, "client-0", &secret);
    assert!(tries.iter().all(|attempt| attempt.error.is_none()), "{tries:?}");
    assert_eq!(tap.sightings(&secret), 2 * TRIES);
}

fn newborn(world: &World, nursery: &Place, family: Family, name: &str, text: &str) -> Vec<Try> {
    let job = Job::Newborn {
        cgroup: world.a.cgroup.path().join(name),
        to: world.b.addresses.at(family, OPEN_PORT),
        text: text.to_owned(),
        tries: TRIES,
    };
    let mut probe = Probe::start(nursery, &job);
    let attempt = |event: &Event| match event {
        Event::Try(attempt) => Some(attempt.clone()),
        _ => None,
    };
    (0..TRIES).map(|_| probe.expect("a newborn's try", GENEROUS, attempt)).collect()
}

#[test]
fn a_cgroup_that_appears_later_is_served() {
    for setting in [Setting::Host, Setting::Pods] {
        let pair = Pair::new(setting);
        let tap = pair.world.tap();
        let secret = marker();
        let _echo = pair.serve(Family::V6, &[Step::Echo]);
        let cgroup = pair.world.a.host("client-later").cgroup;
        let pod = pair.world.a.pod(9);
        let netns = if setting == Setting::Host { &pair.world.a.netns } else { &pod.netns };
        let late = Place::new(netns, &cgroup);
        let mut hammer = Hammer::start(&late, pair.target(Family::V6), &secret);
        for attempt in hammer.succeed(5) {
            let refused = [None, Some(libc::ECONNREFUSED)];
            assert!(refused.contains(&attempt.error), "{setting:?}: {attempt:?}");
        }
        assert_ciphertext(&tap, PORT, &secret);
    }
}

/// Nobody gets plaintext into a new pod: not before its workload is known, nor while it is being
/// enrolled.
#[test]
fn a_new_pods_first_clients_are_not_served_in_plaintext() {
    let pair = Pair::new(Setting::Pods);
    let outside = pair.world.a.host("stranger");
    for (index, family) in (20..).zip([Family::V4, Family::V6, Family::V4, Family::V6]) {
        let pod = pair.world.b.pod(index);
        let place = Place::new(&pod.netns, &pair.world.b.host(&format!("web-{index}")).cgroup);
        let target = pod.addresses.at(family, PORT);
        let mut plain = Hammer::start(&outside, target, "in the clear");
        plain.fail(3, libc::ECONNREFUSED);
        let mut echo = Probe::start(&place, &server(any(family, PORT), &[Step::Echo]));
        // Until the first protected client is served, which shows that enrolment is over.
        let mut protected = Hammer::start(&pair.client, target, "protected");
        protected.succeed(1);
        drop(protected);
        let tries = plain.so_far();
        assert!(!tries.is_empty());
        assert!(tries.iter().all(|attempt| attempt.error.is_some()), "{family:?}: {tries:?}");
        for _ in 0..echo.pending() {
            let served = echo.connection();
            assert_ne!(served.last().bytes, "in the clear".len() as u64, "{family:?}: {served:?}");
        }
    }
}

/// Without an agent the same clients are served, so the scenario above can fail.
#[test]
fn without_an_agent_a_new_pods_first_clients_are_served() {
    let world = World::new();
    let pod = world.b.pod(20);
    let place = Place::new(&pod.netns, &world.b.host("web-20").cgroup);
    let target = pod.addresses.at(Family::V4, PORT);
    let mut plain = Hammer::start(&world.a.host("stranger"), target, "in the clear");
    plain.fail(3, libc::ECONNREFUSED);
    let _echo = Probe::start(&place, &server(any(Family::V4, PORT), &[Step::Echo]));
    plain.succeed(3);
}

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
        let listener = |netns: &std::sync::Arc<NetNs>, place: &Place, port| {
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
