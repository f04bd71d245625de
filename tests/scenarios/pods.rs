//! Pods of a kubelet that somebody decides about: before they are there, while they are held, and once more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sheath_tests::agent::Agent;
use sheath_tests::cgroup::Cgroup;
use sheath_tests::config::{Config, Peer, Select, Workload};
use sheath_tests::hammer::Hammer;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::kubelet::{self, Depth, Driver, Kubelet, LAYOUTS, Qos};
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, SERVER_NETWORKS, Setting, any, client, configs, say, server};
use sheath_tests::pins;
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::Step;
use sheath_tests::status::Status;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family, Pod, World};

/// A port of node B that no agent answers on, at addresses that are no peer's.
const OPEN_PORT: u16 = 9090;

/// Node A has a kubelet, node B the server workload `web`, and on [`OPEN_PORT`] whoever takes all at their word.
struct Scene {
    agent: Agent,
    _agent_b: Agent,
    kubelet: Kubelet,
    pod: Pod,
    server: Pod,
    _echo: Vec<Probe>,
    world: World,
}

impl Scene {
    fn new(driver: Driver, depth: Depth, change: impl FnOnce(&mut Config)) -> Self {
        let world = World::new();
        let kubelet = Kubelet::start(&world.a.cgroup, driver, depth);
        let (mut a, b) = configs(&world, Setting::Pods);
        a.workloads.clear();
        a.peers = vec![Peer::new(&SERVER_NETWORKS, &["web"])];
        let mut pods = kubelet.settings();
        pods.plain = Some(Vec::new());
        a.capture.pods = Some(pods);
        change(&mut a);
        let (pod, server_pod) = (world.a.pod(2), world.b.pod(2));
        let place = Place::new(&server_pod.netns, &world.b.host("web").cgroup);
        let open = world.b.host("open");
        let mut echo = Vec::new();
        for family in FAMILIES {
            echo.push(Probe::start(&place, &server(any(family, PORT), &[Step::Echo])));
            echo.push(Probe::start(&open, &server(any(family, OPEN_PORT), &[Step::Echo])));
        }
        let agent = Agent::start(&world, &world.a, a);
        let agent_b = Agent::start(&world, &world.b, b);
        agent_b.wait_enrolled("web", &place);
        Self { agent, _agent_b: agent_b, kubelet, pod, server: server_pod, _echo: echo, world }
    }

    /// Decides about pods while the agent runs.
    #[track_caller]
    fn decide(&mut self, selected: &[&str], plain: &[&str]) {
        let output = self.agent.reload(|config| decide(config, selected, plain));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn place(&self, cgroup: &Arc<Cgroup>) -> Place {
        Place::new(&self.pod.netns, cgroup)
    }

    fn target(&self, family: Family) -> std::net::SocketAddr {
        self.server.addresses.at(family, PORT)
    }

    fn open(&self, family: Family) -> std::net::SocketAddr {
        self.world.b.extra.at(family, OPEN_PORT)
    }

    /// The errno of a connection from a pod to the open port, if it fails.
    fn try_open(&self, cgroup: &Arc<Cgroup>, text: &str) -> Option<i32> {
        let seen = probe::run(&self.place(cgroup), &client(self.open(Family::V4), &say(text)));
        seen.ended_by()
    }
}

/// Workloads are called by their uids.
fn decide(config: &mut Config, selected: &[&str], plain: &[&str]) {
    let workload = |uid: &&str| {
        let mut workload = Workload::new("client", "/").outbound("require", &[]);
        workload.name = format!("pod-{uid}");
        workload.select = Select::PodUid((*uid).to_owned());
        workload
    };
    config.workloads = selected.iter().map(workload).collect();
    let pods = config.capture.pods.as_mut().expect("a kubelet");
    pods.plain = Some(plain.iter().map(|uid| (*uid).to_owned()).collect());
}

fn held(status: &Status) -> Vec<&str> {
    let pods = status.pods.as_ref().expect("pods in the status");
    pods.held.iter().map(|pod| pod.uid.as_str()).collect()
}

#[test]
fn a_pod_that_was_decided_about_before_is_served_or_left_alone_from_the_beginning() {
    for (driver, depth) in LAYOUTS {
        let (known, plain) = (kubelet::uid(), kubelet::uid());
        let scene = Scene::new(driver, depth, |config| decide(config, &[&known], &[&plain]));
        let tap = scene.world.tap();
        let secret = marker();
        let served = scene.kubelet.make_container(Qos::Burstable, &known);
        let left = scene.kubelet.make_container(Qos::BestEffort, &plain);
        for family in FAMILIES {
            let mut hammer = Hammer::start(&scene.place(&served), scene.target(family), &secret);
            for attempt in hammer.succeed(3) {
                let refused = [None, Some(libc::ECONNREFUSED)];
                assert!(refused.contains(&attempt.error), "{driver:?} {depth:?}: {attempt:?}");
            }
        }
        assert_ciphertext(&tap, PORT, &secret);
        assert_eq!(scene.try_open(&served, &secret), Some(libc::EPERM), "no peer, and require");
        assert_eq!(scene.try_open(&left, "plain as day"), None, "{driver:?} {depth:?}");
        let status = scene.agent.status();
        assert_eq!(held(&status), [""; 0], "{driver:?} {depth:?}");
        assert_eq!(status.pods.as_ref().unwrap().decided, 2);
        assert_eq!(status.counters["pods_held"], 0);
        assert_eq!(tap.sightings(&secret), 0);
    }
}

#[test]
fn a_held_pod_that_is_decided_about_gets_through_at_its_next_try() {
    let mut scene = Scene::new(Driver::Systemd, Depth::Flat, |_| {});
    let tap = scene.world.tap();
    let (secret, public) = (marker(), marker());
    let (known, plain) = (kubelet::uid(), kubelet::uid());
    let served = scene.kubelet.make_container(Qos::Burstable, &known);
    let left = scene.kubelet.make_container(Qos::Guaranteed, &plain);
    let mut waiting = Hammer::start(&scene.place(&served), scene.target(Family::V4), &secret);
    let mut other = Hammer::start(&scene.place(&left), scene.open(Family::V6), &public);
    // What a listener made while its pod is held does afterwards is decided by what the pod is then.
    let _early = Probe::start(&scene.place(&left), &server(any(Family::V4, 7070), &[Step::Echo]));
    waiting.fail(20, libc::ECONNREFUSED);
    other.fail(20, libc::ECONNREFUSED);
    let status = scene.agent.wait_for_status("both pods to be held", |status| {
        let (held, mut both) = (held(status), [known.as_str(), plain.as_str()]);
        both.sort_unstable();
        let mut held = held;
        held.sort_unstable();
        held == both
    });
    let pod = &status.pods.as_ref().unwrap().held[0];
    assert!(pod.cgroup.contains("kubepods") && pod.since.ends_with('Z'), "{pod:?}");
    assert_eq!((tap.sightings(&secret), tap.sightings(&public)), (0, 0));
    assert!(tap.attempts(PORT).is_empty() && tap.attempts(OPEN_PORT).is_empty());

    scene.decide(&[&known], &[&plain]);
    waiting.succeed(3);
    other.succeed(3);
    assert_ciphertext(&tap, PORT, &secret);
    assert!(tap.sightings(&public) > 0, "a pod that is left alone is seen");
    assert_eq!(held(&scene.agent.status()), [""; 0]);
    let caller = scene.world.b.host("caller");
    let seen = probe::run(&caller, &client(scene.pod.addresses.at(Family::V4, 7070), &say("hi")));
    assert_eq!(seen.last().text, "hi", "{seen:?}");
    scene.agent.wait_for_log("INFO", "pod held");
}

/// Sheath comes to a node on which pods run already.
#[test]
fn pods_that_are_there_before_the_first_agent_are_what_was_decided_or_held() {
    let world = World::new();
    let kubelet = Kubelet::start(&world.a.cgroup, Driver::Systemd, Depth::Nested);
    let uids = [(); 4].map(|()| kubelet::uid());
    let [known, plain, unknown, host] = &uids;
    let cgroups = uids.each_ref().map(|uid| kubelet.make_container(Qos::Burstable, uid));
    let pod = world.a.pod(2);
    let place = |cgroup| Place::new(&pod.netns, cgroup);
    let on_host = Place::new(&world.a.netns, &cgroups[3]);
    let _echo = Probe::start(&on_host, &server(any(Family::V4, 7070), &[Step::Echo]));
    let open = server(any(Family::V4, OPEN_PORT), &[Step::Echo]);
    let _open = Probe::start(&world.b.host("open"), &open);
    let mut config = configs(&world, Setting::Pods).0;
    config.capture.pods = Some(kubelet.settings());
    config.peers.clear();
    // As long as nothing is known, they are what they were.
    config.workloads.clear();
    let mut agent = Agent::start(&world, &world.a, config);
    let to = world.b.extra.at(Family::V4, OPEN_PORT);
    let attempt = |place: &Place| probe::run(place, &client(to, &say("hello"))).ended_by();
    for cgroup in &cgroups {
        assert_eq!(attempt(&place(cgroup)), None);
    }
    let output = agent.reload(|config| decide(config, &[known], &[plain]));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(held(&agent.status()), [unknown.as_str()]);
    assert_eq!(attempt(&place(&cgroups[0])), Some(libc::EPERM), "require");
    assert_eq!(attempt(&place(&cgroups[1])), None, "left alone");
    assert_eq!(attempt(&place(&cgroups[2])), Some(libc::ECONNREFUSED), "held");
    // Its listener was there before anybody could note whose it is.
    assert_eq!(attempt(&on_host), None, "of the host: {host}");
    let to = world.a.addresses.at(Family::V4, 7070);
    let seen = probe::run(&world.b.host("caller"), &client(to, &say("hello")));
    assert_eq!(seen.last().text, "hello", "{seen:?}");
}

#[test]
fn held_pods_stay_held_when_the_agent_starts_again_and_known_ones_stay_known() {
    let (known, plain) = (kubelet::uid(), kubelet::uid());
    let mut scene = Scene::new(Driver::Cgroupfs, Depth::Nested, |config| {
        decide(config, &[&known], &[&plain]);
    });
    let tap = scene.world.tap();
    let (secret, public) = (marker(), marker());
    let unknown = kubelet::uid();
    let cgroups =
        [&known, &plain, &unknown].map(|uid| scene.kubelet.make_container(Qos::Burstable, uid));
    let mut served = Hammer::start(&scene.place(&cgroups[0]), scene.target(Family::V4), &secret);
    served.succeed(1);
    // Nothing is known about pods yet: the file says nothing of them, as if no discovery had spoken.
    for restart in 0..2 {
        scene.agent.kill();
        served.fail(3, libc::ECONNREFUSED);
        assert_eq!(scene.try_open(&cgroups[2], &secret), Some(libc::ECONNREFUSED), "no agent");
        assert_eq!(scene.try_open(&cgroups[1], &public), None, "no agent");
        scene.agent.reconfigure(|config| {
            config.workloads.clear();
            config.capture.pods.as_mut().unwrap().plain = None;
        });
        scene.agent.launch();
        let status = scene.agent.status();
        assert!(!status.pods.as_ref().unwrap().known);
        assert_eq!(held(&status), [unknown.as_str()], "restart {restart}");
        assert_eq!(scene.try_open(&cgroups[2], &secret), Some(libc::ECONNREFUSED));
        assert_eq!(scene.try_open(&cgroups[1], &public), None, "it was decided about");
        // A workload that this agent does not know: nothing of it gets out.
        let tries = served.collect("tries", |tries| tries.len() > 5);
        assert!(tries.iter().skip(1).all(|attempt| attempt.error.is_some()), "{tries:?}");
    }
    // Once it is known again, it is the same workload.
    scene.decide(&[&known], &[&plain]);
    served.succeed(3);
    assert_eq!(held(&scene.agent.status()), [unknown.as_str()]);
    assert_eq!(tap.sightings(&secret), 0);
}

#[test]
fn a_pod_changes_from_plain_to_selected_and_back_and_is_held_once_nobody_wants_it() {
    let mut scene = Scene::new(Driver::Systemd, Depth::Nested, |_| {});
    let tap = scene.world.tap();
    let secret = marker();
    let uid = kubelet::uid();
    scene.decide(&[], &[&uid]);
    let cgroup = scene.kubelet.make_container(Qos::Burstable, &uid);
    assert_eq!(scene.try_open(&cgroup, "in the clear"), None);
    for _ in 0..2 {
        scene.decide(&[&uid], &[]);
        assert_eq!(scene.try_open(&cgroup, &secret), Some(libc::EPERM));
        Hammer::start(&scene.place(&cgroup), scene.target(Family::V4), &secret).succeed(1);
        scene.decide(&[], &[&uid]);
        assert_eq!(scene.try_open(&cgroup, "in the clear"), None);
    }
    // It was left alone, and nobody says otherwise.
    scene.decide(&[], &[]);
    assert_eq!(scene.try_open(&cgroup, "in the clear"), None);
    // It was a workload: its processes may still end, and nothing of them goes in the clear.
    scene.decide(&[&uid], &[]);
    scene.decide(&[], &[]);
    assert_eq!(held(&scene.agent.status()), [uid.as_str()]);
    assert_eq!(scene.try_open(&cgroup, &secret), Some(libc::ECONNREFUSED));
    assert_eq!(tap.sightings(&secret), 0);
}

/// The next pod of a name is another pod.
#[test]
fn a_pod_of_the_same_name_is_another_workload() {
    let mut scene = Scene::new(Driver::Cgroupfs, Depth::Flat, |_| {});
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let uid = kubelet::uid();
        let output = scene.agent.reload(|config| {
            decide(config, &[&uid], &[]);
            config.workloads[0].name = "web-0".to_owned();
        });
        assert!(output.status.success(), "{output:?}");
        let _cgroup = scene.kubelet.make_container(Qos::Burstable, &uid);
        let status = scene
            .agent
            .wait_for_status("the pod", |status| status.workload("web-0").cgroups.len() == 1);
        numbers.push(status.workload("web-0").id);
    }
    numbers.dedup();
    assert_eq!(numbers.len(), 3, "{numbers:?}");
}

#[test]
fn pods_that_go_leave_nothing() {
    let mut scene = Scene::new(Driver::Systemd, Depth::Flat, |_| {});
    let entries = |scene: &Scene| {
        let [pods, workloads] = ["PODS", "WORKLOADS"];
        [pods, workloads].map(|name| pins::count(scene.agent.instance(), name))
    };
    let before = entries(&scene);
    let uids: Vec<_> = (0..30).map(|_| kubelet::uid()).collect();
    let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
    scene.decide(&uids[..10], &uids[10..20]);
    let cgroups: Vec<_> =
        uids.iter().map(|uid| scene.kubelet.make_container(Qos::BestEffort, uid)).collect();
    scene.agent.wait_for_status("the pods", |status| held(status).len() == 10);
    assert_eq!(entries(&scene), [before[0] + 20, before[1] + 20]);
    scene.decide(&[], &[]);
    scene.agent.wait_for_status("those that were workloads", |status| held(status).len() == 20);
    drop(cgroups);
    wait::wait_until("nothing to be left", GENEROUS, || entries(&scene) == before);
    assert_eq!(held(&scene.agent.status()), [""; 0]);
}

#[test]
fn pods_for_which_there_is_no_room_are_held_until_there_is() {
    let mut scene = Scene::new(Driver::Cgroupfs, Depth::Flat, |_| {});
    let tap = scene.world.tap();
    let (secret, public) = (marker(), marker());
    // No room for decisions: the kernel holds what it does not know, and the agent finds it.
    let filling = pins::fill(scene.agent.instance(), "PODS");
    let (known, plain) = (kubelet::uid(), kubelet::uid());
    scene.decide(&[&known], &[&plain]);
    let status = scene.agent.wait_for_status("the lack of room to be told of", |status| {
        !status.pods.as_ref().unwrap().problem.is_empty()
    });
    assert!(status.pods.unwrap().problem.contains("no room for 2 more"));
    let cgroups = [&known, &plain].map(|uid| scene.kubelet.make_container(Qos::Burstable, uid));
    Hammer::start(&scene.place(&cgroups[0]), scene.target(Family::V4), &secret).succeed(1);
    Hammer::start(&scene.place(&cgroups[1]), scene.open(Family::V4), &public).succeed(1);
    scene.agent.kill();
    assert_ciphertext(&tap, PORT, &secret);
    let late = kubelet::uid();
    let cgroup = scene.kubelet.make_container(Qos::Burstable, &late);
    assert_eq!(scene.try_open(&cgroup, &secret), Some(libc::ECONNREFUSED));
    filling.clear();

    // No room for cgroups: what is new below the pods' root is held, and the host's namespace is spared.
    scene.agent.launch();
    let filling = pins::fill(scene.agent.instance(), "WORKLOADS");
    let cgroup = scene.kubelet.make_container(Qos::Burstable, &kubelet::uid());
    assert_eq!(scene.try_open(&cgroup, &secret), Some(libc::ECONNREFUSED));
    let host = Place::new(&scene.world.a.netns, &cgroup);
    let seen = probe::run(&host, &client(scene.open(Family::V4), &say("hello")));
    assert_eq!(seen.last().text, "hello", "{seen:?}");
    filling.clear();
    assert_eq!(tap.sightings(&secret), 0);
}

#[test]
fn a_wrong_root_is_named_by_check() {
    let scene = Scene::new(Driver::Cgroupfs, Depth::Flat, |_| {});
    let output = scene.agent.sheath_check();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&format!("pods are below {}", scene.kubelet.root())), "{text}");
    let mut other = Scene::new(Driver::Cgroupfs, Depth::Flat, |_| {});
    let root = format!("/{}/elsewhere", other.world.a.cgroup.relative());
    other.agent.reconfigure(|config| config.capture.pods.as_mut().unwrap().root = root.clone());
    let output = other.agent.sheath_check();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && text.contains(&format!("there is no cgroup {root}")),
        "{text}"
    );
}

/// Whatever comes and goes while an agent starts, it starts: a pod that is removed under its eyes is no reason not to.
#[test]
fn an_agent_starts_while_pods_come_and_go() {
    const CHURNERS: usize = 3;
    const STARTS: usize = 12;
    let known: Vec<_> = (0..CHURNERS).map(|_| kubelet::uid()).collect();
    let selected: Vec<_> = known.iter().map(String::as_str).collect();
    let mut scene = Scene::new(Driver::Cgroupfs, Depth::Flat, |config| {
        decide(config, &selected, &[]);
    });
    let tap = scene.world.tap();
    let secret = marker();
    let stop = AtomicBool::new(false);
    let (kubelet, netns, open) = (&scene.kubelet, &scene.pod.netns, scene.open(Family::V4));
    let agent = &mut scene.agent;
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for uid in &known {
            let (stop, secret) = (&stop, &secret);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for uid in [uid.clone(), kubelet::uid()] {
                        let cgroup = kubelet.make_container(Qos::BestEffort, &uid);
                        let place = Place::new(netns, &cgroup);
                        // Nobody who is protected or held gets through to a stranger.
                        let seen = probe::run(&place, &client(open, &say(secret)));
                        assert!(seen.ended_by().is_some(), "{uid} was not refused");
                    }
                }
            });
        }
        for _ in 0..STARTS {
            agent.kill();
            agent.launch();
        }
    });
    assert_eq!(tap.sightings(&secret), 0);
}

/// Ends the churning also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
