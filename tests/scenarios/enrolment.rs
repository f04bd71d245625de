//! Promise 1 during enrolment: a workload whose cgroup or first process appears after the agent
//! started, or while it is dead, is protected from its first instant.

use sheath_tests::agent::Agent;
use sheath_tests::hammer::Hammer;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::netns::must_succeed;
use sheath_tests::pair::{PORT, Pair, Setting, any, configs, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Event, Job, Socket, Step, Try};
use sheath_tests::wait::{GENEROUS, wait_until};
use sheath_tests::world::{FAMILIES, Family, World};

/// A port of node B where everyone is taken at their word: whatever gets out arrives.
const OPEN_PORT: u16 = 9090;

const NEWBORNS: u8 = 10;
const TRIES: usize = 20;

/// A node on which processes make cgroups and connect from them at once.
struct Nursery {
    place: Place,
    _open: [Probe; 2],
    world: World,
}

impl Nursery {
    fn new() -> Self {
        let world = World::new();
        let open = world.b.host("open");
        let serve = |family| Probe::start(&open, &server(any(family, OPEN_PORT), &[Step::Echo]));
        Self { place: world.a.host("nursery"), _open: FAMILIES.map(serve), world }
    }

    fn agent(&self) -> Agent {
        Agent::start(&self.world, &self.world.a, configs(&self.world, Setting::Host).0)
    }

    /// Lives in a new cgroup and, for a pod, in a new namespace.
    fn newborn(&self, setting: Setting, family: Family, number: u8, text: &str) -> Vec<Try> {
        let pod =
            (setting == Setting::Pods).then(|| self.world.a.pod(2 + number + family as u8 * 100));
        let netns = pod.as_ref().map_or(&self.place.netns, |pod| &pod.netns);
        // Half of them live below the workload's cgroup.
        let nested = if number.is_multiple_of(2) { "" } else { "/main/worker" };
        let name = format!("client-{setting:?}-{family:?}-{number}{nested}");
        let job = Job::Newborn {
            cgroup: self.world.a.cgroup.path().join(name),
            to: self.world.b.addresses.at(family, OPEN_PORT),
            text: text.to_owned(),
            tries: TRIES,
        };
        let mut probe = Probe::start(&Place::new(netns, &self.place.cgroup), &job);
        let attempt = |event: &Event| match event {
            Event::Try(attempt) => Some(attempt.clone()),
            _ => None,
        };
        (0..TRIES).map(|_| probe.expect("a newborn's try", GENEROUS, attempt)).collect()
    }

    fn assert_nothing_gets_out(&self) {
        let tap = self.world.tap();
        for (setting, family) in
            [Setting::Host, Setting::Pods].into_iter().flat_map(|s| FAMILIES.map(|f| (s, f)))
        {
            let secret = marker();
            for number in 0..NEWBORNS {
                let context = format!("{setting:?} {family:?} {number}");
                let tries = self.newborn(setting, family, number, &secret);
                assert!(
                    tries.iter().all(|attempt| attempt.error.is_some()),
                    "{context}: {tries:?}"
                );
                assert_eq!(tap.sightings(&secret), 0, "{context}: plaintext on the wire");
            }
        }
    }
}

#[test]
fn a_new_cgroups_first_connections_are_not_in_plaintext() {
    let nursery = Nursery::new();
    let _agent = nursery.agent();
    nursery.assert_nothing_gets_out();
}

#[test]
fn nor_are_they_while_the_agent_is_dead() {
    let nursery = Nursery::new();
    let mut agent = nursery.agent();
    agent.kill();
    nursery.assert_nothing_gets_out();
}

/// The same newborns where no agent has ever run: they do get through.
#[test]
fn without_an_agent_a_new_cgroups_first_connections_are_seen() {
    let nursery = Nursery::new();
    let tap = nursery.world.tap();
    let secret = marker();
    let tries: Vec<_> = [Setting::Host, Setting::Pods]
        .into_iter()
        .zip(0..)
        .flat_map(|(setting, number)| nursery.newborn(setting, Family::V4, number, &secret))
        .collect();
    assert!(tries.iter().all(|attempt| attempt.error.is_none()), "{tries:?}");
    assert_eq!(tap.sightings(&secret), 2 * tries.len());
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
        // One at least: its SYN may have been dropped at the same moment as that of the protected client.
        let mut tries = plain.collect("a plain client's try", |tries| !tries.is_empty());
        tries.extend(plain.so_far());
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

/// The agent of the server's node is dead when the pod appears. Its port stays shut.
#[test]
fn a_new_pod_while_the_agent_is_dead_serves_nobody() {
    let mut pair = Pair::new(Setting::Pods);
    pair.agent_b.kill();
    let outside = pair.world.a.host("stranger");
    for (index, family) in (20..).zip(FAMILIES) {
        let pod = pair.world.b.pod(index);
        let place = Place::new(&pod.netns, &pair.world.b.host(&format!("web-{index}")).cgroup);
        let mut echo = Probe::start(&place, &server(any(family, PORT), &[Step::Echo]));
        let to = pod.addresses.at(family, PORT);
        let socket = Socket { connect_limit: Some(1_000), ..Socket::default() };
        let seen = probe::run(&outside, &Job::Client { socket, to, steps: say("let me in") });
        assert!(seen.error.is_some(), "{family:?}: {seen:?}");
        assert_eq!(echo.pending(), 0, "{family:?}: the application was reached");
    }
}

/// What an agent holds for a pod goes with the pod, or the namespace would live for ever.
#[test]
fn a_pod_that_goes_leaves_nothing() {
    let pair = Pair::new(Setting::Pods);
    let namespaces = |agent: &Agent| agent.status().workload("client").namespaces.len();
    let (files, before) = (pair.agent_a.open_files(), namespaces(&pair.agent_a));
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    for index in 30..33 {
        let pod = pair.world.a.pod(index);
        let cgroup = pair.world.a.host(&format!("client-{index}")).cgroup;
        let mut hammer =
            Hammer::start(&Place::new(&pod.netns, &cgroup), pair.target(Family::V4), "hello");
        hammer.succeed(1);
    }
    // The pods' processes, cgroups and namespaces are gone.
    let links = || {
        let mut command = pair.world.a.netns.command("ip");
        must_succeed(command.args(["-brief", "link"])).matches("pod3").count()
    };
    wait_until("the end of the pods' namespaces", GENEROUS, || links() == 0);
    pair.agent_a.wait_for_status("the pods to be forgotten", |status| {
        status.workload("client").namespaces.len() == before && status.is_idle()
    });
    wait_until("closed descriptors", GENEROUS, || pair.agent_a.open_files() <= files);
}
