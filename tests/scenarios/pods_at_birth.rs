//! Promise 1 for pods of a kubelet: one that nobody has decided about says nothing and answers nothing, from its first instant
//! on, with or without an agent.

use std::sync::Arc;

use sheath_tests::agent::Agent;
use sheath_tests::config::{Config, Peer, Select, Workload};
use sheath_tests::kubelet::{self, CLASSES, Depth, Driver, Kubelet, LAYOUTS, Qos};
use sheath_tests::names::marker;
use sheath_tests::netns::NetNs;
use sheath_tests::pair::{PORT, SERVER_NETWORKS, Setting, any, client, configs, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Event, FastOpen, IoUring, Job, Socket, Step, Try};
use sheath_tests::wait::GENEROUS;
use sheath_tests::world::{FAMILIES, Family, Pod, World};

/// A port of node B where everyone is taken at their word: whatever gets out arrives.
const OPEN_PORT: u16 = 9090;

/// Processes that connect in their first millisecond.
const NEWBORNS: usize = 500;
/// Of these, those during which the agent is killed and started again.
const RESTARTS: usize = 5;

/// A node whose kubelet makes pods that nobody has decided about.
struct Node {
    kubelets: Vec<(Kubelet, (Driver, Depth))>,
    pod: Pod,
    outside: Place,
    _open: [Probe; 2],
    world: World,
}

impl Node {
    fn new(layouts: &[(Driver, Depth)]) -> Self {
        let world = World::new();
        let open = world.b.host("open");
        let serve = |family| Probe::start(&open, &server(any(family, OPEN_PORT), &[Step::Echo]));
        let kubelet = |layout: &(Driver, Depth)| {
            let name = format!("{:?}-{:?}", layout.0, layout.1).to_lowercase();
            (Kubelet::start(&world.a.cgroup.child(name), layout.0, layout.1), *layout)
        };
        let kubelets = layouts.iter().map(kubelet).collect();
        let outside = world.a.host("runtime");
        Self { kubelets, pod: world.a.pod(2), outside, _open: FAMILIES.map(serve), world }
    }

    fn config(&self, kubelet: &Kubelet) -> Config {
        let mut config = configs(&self.world, Setting::Pods).0;
        config.capture.pods = Some(kubelet.settings());
        config
    }

    fn agent(&self, kubelet: &Kubelet) -> Agent {
        Agent::start(&self.world, &self.world.a, self.config(kubelet))
    }

    /// A process of a new pod, in the pod's namespace or in the node's.
    fn newborn(
        &self,
        netns: &Arc<NetNs>,
        kubelet: &Kubelet,
        qos: Qos,
        uid: &str,
        secret: &str,
        number: usize,
    ) -> Vec<Try> {
        const TRIES: usize = 2;
        let family = FAMILIES[number % 2];
        let job = Job::Newborn {
            cgroup: kubelet.path(qos, uid).join(kubelet.container()),
            to: self.world.b.addresses.at(family, OPEN_PORT),
            text: secret.to_owned(),
            tries: TRIES,
        };
        let mut probe = Probe::start(&Place::new(netns, &self.outside.cgroup), &job);
        let attempt = |event: &Event| match event {
            Event::Try(attempt) => Some(attempt.clone()),
            _ => None,
        };
        (0..TRIES).map(|_| probe.expect("a newborn's try", GENEROUS, attempt)).collect()
    }
}

#[track_caller]
fn assert_refused(tries: &[Try], context: &str) {
    for attempt in tries {
        assert_eq!(
            (attempt.error, attempt.at_connect),
            (Some(libc::ECONNREFUSED), true),
            "{context}: {tries:?}"
        );
    }
}

#[test]
fn a_pod_that_nobody_has_decided_about_says_nothing_whatever_the_layout() {
    let node = Node::new(&LAYOUTS);
    let tap = node.world.tap();
    let secret = marker();
    for (kubelet, layout) in &node.kubelets {
        let mut agent = node.agent(kubelet);
        for alive in [true, false] {
            if !alive {
                agent.kill();
            }
            for (number, qos) in CLASSES.into_iter().enumerate() {
                let uid = kubelet::uid();
                let tries = node.newborn(&node.pod.netns, kubelet, qos, &uid, &secret, number);
                assert_refused(&tries, &format!("{layout:?} {qos:?} alive: {alive}"));
            }
        }
    }
    assert_eq!(tap.sightings(&secret), 0);
    assert!(tap.attempts(OPEN_PORT).is_empty(), "not even a SYN");
}

/// Otherwise the scenarios here could not fail.
#[test]
fn without_pods_in_the_configuration_the_same_pods_are_seen() {
    let node = Node::new(&LAYOUTS[..1]);
    let tap = node.world.tap();
    let secret = marker();
    let kubelet = &node.kubelets[0].0;
    let mut config = node.config(kubelet);
    config.capture.pods = None;
    let _agent = Agent::start(&node.world, &node.world.a, config);
    for (number, qos) in CLASSES.into_iter().enumerate() {
        let uid = kubelet::uid();
        let tries = node.newborn(&node.pod.netns, kubelet, qos, &uid, &secret, number);
        assert!(tries.iter().all(|attempt| attempt.error.is_none()), "{tries:?}");
    }
    assert!(tap.sightings(&secret) > 0);
}

#[test]
fn five_hundred_newborns_say_nothing_while_the_agent_comes_and_goes() {
    let node = Node::new(&LAYOUTS[2..3]);
    let tap = node.world.tap();
    let secret = marker();
    let kubelet = &node.kubelets[0].0;
    let mut agent = node.agent(kubelet);
    for number in 0..NEWBORNS {
        let in_this_part = number % (NEWBORNS / RESTARTS);
        if in_this_part == 20 {
            agent.kill();
        }
        if in_this_part == 40 {
            agent.launch();
        }
        let (qos, uid) = (CLASSES[number % 3], kubelet::uid());
        let tries = node.newborn(&node.pod.netns, kubelet, qos, &uid, &secret, number);
        assert_refused(&tries, &format!("newborn {number}"));
    }
    assert_eq!(tap.sightings(&secret), 0);
    assert!(tap.attempts(OPEN_PORT).is_empty(), "not even a SYN");
    let counters = agent.status().counters;
    assert!(counters["pods_held"] >= NEWBORNS as u64, "{counters:?}");
    assert_eq!(counters["connect_denied_undecided"], 2 * NEWBORNS as u64);
}

#[test]
fn a_held_pod_answers_nobody_from_outside() {
    let node = Node::new(&LAYOUTS);
    for alive in [true, false] {
        for (kubelet, layout) in &node.kubelets {
            let mut agent = node.agent(kubelet);
            if !alive {
                agent.kill();
            }
            for (qos, family) in CLASSES.into_iter().zip([Family::V4, Family::V6, Family::V4]) {
                let cgroup = kubelet.make_container(qos, &kubelet::uid());
                let place = Place::new(&node.pod.netns, &cgroup);
                let mut echo = Probe::start(&place, &server(any(family, PORT), &[Step::Echo]));
                let socket = Socket { connect_limit: Some(700), ..Socket::default() };
                let to = node.pod.addresses.at(family, PORT);
                let job = Job::Client { socket, to, steps: say("let me in") };
                let seen = probe::run(&node.world.b.host(&format!("stranger-{qos:?}")), &job);
                assert!(seen.error.is_some(), "{layout:?} {qos:?} {alive}: {seen:?}");
                assert_eq!(echo.pending(), 0, "{layout:?} {qos:?} {alive}");
                // Its own loopback is its own affair.
                let own = match family {
                    Family::V4 => "127.0.0.1:8080",
                    Family::V6 => "[::1]:8080",
                };
                let seen = probe::run(&place, &client(own.parse().unwrap(), &say("hello")));
                assert_eq!(seen.last().text, "hello", "{layout:?} {qos:?} {alive}: {seen:?}");
            }
        }
    }
}

/// What makes a node work runs in its own namespace, Sheath itself included.
#[test]
fn a_held_pod_in_the_hosts_namespace_goes_on_unless_asked_for() {
    for is_held in [false, true] {
        let node = Node::new(&LAYOUTS[..1]);
        let kubelet = &node.kubelets[0].0;
        let mut config = node.config(kubelet);
        config.capture.pods.as_mut().unwrap().host_network = is_held;
        let mut agent = Agent::start(&node.world, &node.world.a, config);
        for alive in [true, false] {
            if !alive {
                agent.kill();
            }
            for number in 0..2 {
                let (uid, secret) = (kubelet::uid(), marker());
                let host = &node.world.a.netns;
                let tries = node.newborn(host, kubelet, Qos::Burstable, &uid, &secret, number);
                match is_held {
                    true => assert_refused(&tries, &format!("alive: {alive}")),
                    false => assert!(tries.iter().all(|t| t.error.is_none()), "{tries:?}"),
                }
            }
            let cgroup = kubelet.make_container(Qos::BestEffort, &kubelet::uid());
            let place = Place::new(&node.world.a.netns, &cgroup);
            for family in FAMILIES {
                let mut echo = Probe::start(&place, &server(any(family, PORT), &[Step::Echo]));
                let socket = Socket { connect_limit: Some(700), ..Socket::default() };
                let to = node.world.a.addresses.at(family, PORT);
                let job = Job::Client { socket, to, steps: say("hello") };
                let caller = node.world.b.host(&format!("caller-{family:?}-{alive}"));
                let seen = probe::run(&caller, &job);
                match is_held {
                    true => assert_eq!((seen.error.is_some(), echo.pending()), (true, 0)),
                    false => assert_eq!(seen.last().text, "hello", "{family:?}: {seen:?}"),
                }
            }
        }
    }
}

/// Every way to open a connection that an unprivileged process has.
fn sockets(text: &str) -> Vec<Socket> {
    let io_uring = |how| Socket { io_uring: Some(how), ..Socket::default() };
    vec![
        Socket::default(),
        Socket { mapped: true, ..Socket::default() },
        Socket { mptcp: true, ..Socket::default() },
        Socket { fast_open: FastOpen::Send(text.to_owned()), ..Socket::default() },
        Socket { fast_open: FastOpen::Connect, ..Socket::default() },
        io_uring(IoUring::Entered),
        io_uring(IoUring::Polled),
    ]
}

#[test]
fn whatever_socket_a_held_pod_makes_says_nothing_but_in_the_hosts_namespace() {
    let node = Node::new(&LAYOUTS[..1]);
    let tap = node.world.tap();
    let kubelet = &node.kubelets[0].0;
    let mut agent = node.agent(kubelet);
    let cgroup = kubelet.make_container(Qos::Burstable, &kubelet::uid());
    for alive in [true, false] {
        if !alive {
            agent.kill();
        }
        let (secret, public) = (marker(), marker());
        let to = node.world.b.addresses.at(Family::V4, OPEN_PORT);
        let play = |netns: &Arc<NetNs>, socket: &Socket, text: &str| {
            let steps = match socket.fast_open {
                FastOpen::Send(_) => vec![Step::EndSending, Step::ReceiveToEnd],
                FastOpen::No | FastOpen::Connect => say(text),
            };
            let job = Job::Client { socket: socket.clone(), to, steps };
            probe::run(&Place::new(netns, &cgroup), &job)
        };
        for socket in sockets(&secret) {
            let seen = play(&node.pod.netns, &socket, &secret);
            assert!(seen.ended_by().is_some(), "alive: {alive}: {socket:?}: {seen:?}");
        }
        assert_eq!(tap.sightings(&secret), 0);
        for socket in sockets(&public) {
            let seen = play(&node.world.a.netns, &socket, &public);
            assert_eq!(seen.last().text, public, "alive: {alive}: {socket:?}: {seen:?}");
        }
    }
}

#[test]
fn static_pods_and_what_has_no_uid_are_never_held() {
    let node = Node::new(&LAYOUTS);
    let secret = marker();
    for (kubelet, layout) in &node.kubelets {
        let _agent = node.agent(kubelet);
        for (number, uid) in [kubelet::static_uid(), "my-own-uid".to_owned()].iter().enumerate() {
            let tries =
                node.newborn(&node.pod.netns, kubelet, Qos::Burstable, uid, &secret, number);
            assert!(tries.iter().all(|t| t.error.is_none()), "{layout:?} {uid}: {tries:?}");
        }
        // Nor is whoever is beside the pods.
        let beside = node.world.a.cgroup.child(format!("beside-{:?}-{:?}", layout.0, layout.1));
        let place = Place::new(&node.pod.netns, &beside);
        let to = node.world.b.addresses.at(Family::V4, OPEN_PORT);
        let seen = probe::run(&place, &client(to, &say("hello")));
        assert_eq!(seen.last().text, "hello", "{layout:?}: {seen:?}");
    }
}

#[test]
fn with_unknown_allow_nobody_is_held() {
    let node = Node::new(&LAYOUTS[2..3]);
    let kubelet = &node.kubelets[0].0;
    let mut config = node.config(kubelet);
    config.capture.pods.as_mut().unwrap().unknown = Some("allow");
    let _agent = Agent::start(&node.world, &node.world.a, config);
    let secret = marker();
    let tries = node.newborn(&node.pod.netns, kubelet, Qos::Burstable, &kubelet::uid(), &secret, 0);
    assert!(tries.iter().all(|attempt| attempt.error.is_none()), "{tries:?}");
}

/// A container may make cgroups below its own, of any name: none of them is another pod's.
#[test]
fn a_cgroup_with_the_name_of_another_pods_is_not_that_pods() {
    for (driver, depth) in [(Driver::Cgroupfs, Depth::Flat), (Driver::Systemd, Depth::Nested)] {
        let node = Node::new(&[(driver, depth)]);
        let kubelet = &node.kubelets[0].0;
        let (known, plain, unknown) = (kubelet::uid(), kubelet::uid(), kubelet::uid());
        let mut config = node.config(kubelet);
        config.capture.pods.as_mut().unwrap().plain = Some(vec![plain.clone()]);
        config.workloads[0] = Workload::new("client", "/").outbound("require", &[]);
        config.workloads[0].select = Select::PodUid(known.clone());
        config.peers = vec![Peer::new(&SERVER_NETWORKS, &["web"])];
        let agent = Agent::start(&node.world, &node.world.a, config);
        let secret = marker();
        let root = kubelet.path(Qos::Burstable, &unknown).join(kubelet.container());
        for (number, other) in [&plain, &known].into_iter().enumerate() {
            // The name alone, and all of the path once more.
            let path = kubelet.path(Qos::Burstable, other);
            let again = path.strip_prefix(node.world.a.cgroup.path()).unwrap();
            for cgroup in [root.join(path.file_name().unwrap()), root.join(again)] {
                let to = node.world.b.addresses.at(FAMILIES[number], OPEN_PORT);
                let text = secret.clone();
                let job = Job::Newborn { cgroup, to, text, tries: 2 };
                let place = Place::new(&node.pod.netns, &node.outside.cgroup);
                let mut probe = Probe::start(&place, &job);
                for _ in 0..2 {
                    let attempt = probe.expect("a try", GENEROUS, |event| match event {
                        Event::Try(attempt) => Some(attempt.clone()),
                        _ => None,
                    });
                    assert_eq!(attempt.error, Some(libc::ECONNREFUSED), "{driver:?} {depth:?}");
                }
            }
        }
        let status = agent.status();
        assert_eq!(status.workload("client").cgroups.len(), 0, "{status:?}");
        let held: Vec<_> = status.pods.unwrap().held.into_iter().map(|pod| pod.uid).collect();
        assert_eq!(held, [unknown]);
    }
}
