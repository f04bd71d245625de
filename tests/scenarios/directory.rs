//! Who is at an address says the controller's directory: protected, pending, plain, or nobody that anybody knows.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sheath_tests::agent::{self, Agent};
use sheath_tests::config::{Select, Workload};
use sheath_tests::directory::{Said, Teller};
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::kubelet::{self, Depth, Driver, Kubelet, Qos};
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, Setting, any, client, living, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Connection, Job, Step};
use sheath_tests::status::{Directory, Status};
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family, World};

/// A port of the server pod on which it speaks for itself.
const OPEN_PORT: u16 = 9090;

/// Two nodes with a pod each, and a controller. What is said of the server pod is all that its client's agent knows of it.
struct Scene {
    pair: Pair,
    _echo: Vec<Probe>,
    controller: Teller,
}

impl Scene {
    fn new(mode: &'static str) -> Self {
        Self::with(mode, |_| {})
    }

    /// `first` happens before agents start.
    fn with(mode: &'static str, first: impl FnOnce(&mut Teller)) -> Self {
        let mut controller = None;
        let pair = Pair::with_world(Setting::Pods, |world, a, b| {
            let mut new = Teller::start(world);
            first(&mut new);
            a.peers.clear();
            a.workloads[0] = a.workloads[0].clone().outbound(mode, &[]);
            a.controller = Some(new.settings(0));
            b.workloads[0] = b.workloads[0].clone().inbound("strict", Some(&[PORT]), &["client"]);
            controller = Some(new);
        });
        let mut echo = Vec::new();
        for family in FAMILIES {
            echo.push(pair.serve(family, &[Step::Echo]));
            let open = server(any(family, OPEN_PORT), &[Step::Echo]);
            echo.push(Probe::start(&pair.server, &open));
        }
        Self { pair, _echo: echo, controller: controller.expect("a controller") }
    }

    fn address(&self, family: Family) -> IpAddr {
        self.pair.server_addresses.of(family)
    }

    /// Says of both addresses of the server pod that this pod is there, and waits until the client's agent knows.
    #[track_caller]
    fn say(&self, pod: u64, said: &Said) {
        let before = directory(&self.agent().status()).sequence;
        for family in FAMILIES {
            self.controller.say(self.address(family), pod, said.clone());
        }
        self.agent()
            .wait_for_status("the directory", |status| directory(status).sequence >= before + 2);
    }

    fn agent(&self) -> &Agent {
        &self.pair.agent_a
    }

    fn client(&self) -> &Place {
        &self.pair.client
    }

    fn call(&self, family: Family, port: u16, text: &str) -> Connection {
        let to = self.pair.server_addresses.at(family, port);
        probe::run(self.client(), &client(to, &say(text)))
    }
}

fn directory(status: &Status) -> &Directory {
    status.directory.as_ref().expect("a directory in the status")
}

fn heard(seen: &Connection) -> String {
    seen.last().text.clone()
}

#[track_caller]
fn assert_served(seen: &Connection, text: &str) {
    assert_eq!((seen.ended_by(), heard(seen)), (None, text.to_owned()), "{seen:?}");
}

#[track_caller]
fn assert_ended_by(seen: &Connection, errno: i32) {
    assert_eq!((seen.ended_by(), heard(seen)), (Some(errno), String::new()), "{seen:?}");
}

#[test]
fn a_protected_pod_is_called_by_its_identity_alone() {
    for mode in ["require", "prefer"] {
        let scene = Scene::new(mode);
        let tap = scene.pair.world.tap();
        let text = marker();
        scene.say(1, &Said::Protected("web"));
        for family in FAMILIES {
            assert_served(&scene.call(family, PORT, &text), &text);
        }
        let access = scene.agent().wait_for_access("the flow", |access| !access.peer_id.is_empty());
        assert_eq!(access.rule, "directory");
        // It is not who the directory says it is.
        scene.say(2, &Said::Protected("db"));
        for family in FAMILIES {
            assert_ended_by(&scene.call(family, PORT, &text), libc::ECONNRESET);
        }
        assert_ciphertext(&tap, PORT, &text);
    }
}

#[test]
fn a_pending_pod_is_refused_in_every_mode() {
    for mode in ["require", "prefer"] {
        let scene = Scene::new(mode);
        let tap = scene.pair.world.tap();
        let text = marker();
        scene.say(1, &Said::Pending);
        for port in [PORT, OPEN_PORT] {
            for family in FAMILIES {
                // At once, by the kernel.
                let seen = scene.call(family, port, &text);
                assert_eq!(seen.error, Some(libc::ECONNREFUSED), "{seen:?}");
            }
        }
        let access = scene.agent().wait_for_access("the refusal", |access| {
            access.reason.contains("is to be protected, and the agent of its node node-b has not")
        });
        assert_eq!(access.rule, "directory");
        assert_eq!(tap.sightings(&text), 0);
        scene.say(1, &Said::Protected("web"));
        assert_served(&scene.call(Family::V4, PORT, &text), &text);
    }
}

#[test]
fn a_plain_pod_is_refused_or_left_alone_by_the_mode() {
    let scene = Scene::new("require");
    let tap = scene.pair.world.tap();
    let text = marker();
    scene.say(1, &Said::Plain);
    for family in FAMILIES {
        assert_ended_by(&scene.call(family, OPEN_PORT, &text), libc::EPERM);
    }
    assert_eq!(tap.sightings(&text), 0);
    drop(tap);
    let scene = Scene::new("prefer");
    let tap = scene.pair.world.tap();
    scene.say(1, &Said::Plain);
    for family in FAMILIES {
        assert_served(&scene.call(family, OPEN_PORT, &text), &text);
    }
    assert!(tap.sightings(&text) > 0, "it is plain");
}

#[test]
fn an_address_that_nobody_knows_is_asked_for_and_never_guessed() {
    for mode in ["require", "prefer"] {
        let scene = Scene::new(mode);
        let tap = scene.pair.world.tap();
        let text = marker();
        for port in [PORT, OPEN_PORT] {
            let begun = Instant::now();
            assert_ended_by(&scene.call(Family::V4, port, &text), libc::ECONNRESET);
            assert!(begun.elapsed() >= Duration::from_millis(900), "nobody was waited for");
        }
        assert_eq!(tap.sightings(&text), 0);
        // It becomes known while a connection waits.
        let to = scene.pair.server_addresses.at(Family::V4, PORT);
        let mut waiting = Probe::start(scene.client(), &client(to, &say(&text)));
        std::thread::sleep(Duration::from_millis(300));
        scene.controller.say(to.ip(), 1, Said::Protected("web"));
        assert_served(&waiting.connection(), &text);
        // What is no address of the cluster's is none of its business.
        let elsewhere = scene.pair.world.b.extra.at(Family::V4, OPEN_PORT);
        let _open = Probe::start(
            &scene.pair.world.b.host("open"),
            &server(any(Family::V4, OPEN_PORT), &[Step::Echo]),
        );
        let seen = probe::run(scene.client(), &client(elsewhere, &say("elsewhere")));
        match mode {
            "prefer" => assert_served(&seen, "elsewhere"),
            _ => assert_ended_by(&seen, libc::EPERM),
        }
    }
}

#[test]
fn nobody_is_called_in_plaintext_before_the_directory_is_known() {
    let scene = Scene::with("prefer", Teller::stop);
    let tap = scene.pair.world.tap();
    let text = marker();
    assert_ended_by(&scene.call(Family::V4, OPEN_PORT, &text), libc::ECONNRESET);
    let elsewhere = scene.pair.world.b.extra.at(Family::V4, OPEN_PORT);
    let seen = probe::run(scene.client(), &client(elsewhere, &say(&text)));
    assert_ended_by(&seen, libc::ECONNRESET);
    assert_eq!(tap.sightings(&text), 0);
    let status = scene.agent().status();
    let Directory { known, current, problem, .. } = directory(&status);
    assert!(!known && !current && problem.contains("127.0.0.1"), "{status:?}");
}

#[test]
fn what_is_known_outlives_the_controller_and_the_agent() {
    let mut scene = Scene::new("require");
    let tap = scene.pair.world.tap();
    let text = marker();
    scene.say(1, &Said::Protected("web"));
    let v6 = scene.address(Family::V6);
    scene.controller.forget(v6);
    scene.agent().wait_for_status("one that is gone", |s| directory(s).entries == 1);
    assert_served(&scene.call(Family::V4, PORT, &text), &text);
    scene.controller.stop();
    scene.agent().wait_for_status("the controller's absence", |s| !directory(s).current);
    let check = |scene: &Scene| {
        assert_served(&scene.call(Family::V4, PORT, &text), &text);
        assert_ended_by(&scene.call(Family::V6, PORT, &text), libc::ECONNRESET);
        let status = scene.agent().status();
        assert!(directory(&status).known && !directory(&status).problem.is_empty());
    };
    check(&scene);
    scene.pair.agent_a.kill();
    scene.pair.agent_a.launch();
    check(&scene);
    // Another leader says the same in another epoch, and something new.
    scene.controller.start_again();
    scene.agent().wait_for_status("the controller", |s| directory(s).current);
    scene.controller.say(v6, 1, Said::Protected("web"));
    scene.agent().wait_for_status("what is new", |s| directory(s).protected == 2);
    assert_served(&scene.call(Family::V6, PORT, &text), &text);
    assert_ciphertext(&tap, PORT, &text);
}

#[test]
fn an_address_that_another_pod_has_got_is_not_the_old_ones() {
    let scene = Scene::new("prefer");
    scene.say(1, &Said::Protected("web"));
    let to = |family| scene.pair.server_addresses.at(family, PORT);
    let begin = |family| {
        let mut probe = Probe::start(scene.client(), &client(to(family), &living()));
        probe.wait_paused();
        probe
    };
    let (mut first, mut second) = (begin(Family::V4), begin(Family::V6));
    // Nothing is said of the second's address.
    scene.controller.say(scene.address(Family::V4), 2, Said::Protected("web"));
    scene.agent().wait_for_access("the end of a session", |access| {
        access.reason.contains("another pod has got the address 10.1.2.2:8080")
    });
    first.go();
    assert_eq!(first.connection().ended_by(), Some(libc::ECONNRESET), "another pod is there");
    second.go();
    assert_eq!(second.connection().ended_by(), None);
    // The new one proves the same identity: a session of its own, as the kept one was with another pod.
    let reused = |scene: &Scene| scene.agent().status().counters["sessions_reused"];
    let before = reused(&scene);
    assert_served(&scene.call(Family::V4, PORT, "new"), "new");
    assert_eq!(reused(&scene), before);
    assert_served(&scene.call(Family::V4, PORT, "again"), "again");
    assert_eq!(reused(&scene), before + 1);
    // That it is not protected any more does not end what is.
    let mut third = begin(Family::V4);
    scene.controller.say(scene.address(Family::V4), 2, Said::Pending);
    scene.agent().wait_for_status("a pending pod", |s| directory(s).pending == 1);
    third.go();
    assert_eq!(third.connection().ended_by(), None);
}

#[test]
fn the_controller_is_told_which_pods_are_protected_and_no_sooner() {
    let world = World::new();
    let controller = Teller::start(&world);
    let kubelet = Kubelet::start(&world.a.cgroup, Driver::Systemd, Depth::Flat);
    let uids = [kubelet::uid(), kubelet::uid()];
    let mut config = agent::config(&world, &world.a);
    config.capture.pods = Some(kubelet.settings());
    config.controller = Some(controller.settings(0));
    let workload = |uid: &String| {
        let mut workload = Workload::new("web", "/").inbound("strict", None, &["client"]);
        workload.name = format!("pod-{uid}");
        workload.select = Select::PodUid(uid.clone());
        workload
    };
    config.workloads = uids.iter().map(workload).collect();
    let mut agent = Agent::start(&world, &world.a, config);
    agent.wait_for_status("the controller", |status| directory(status).current);
    assert_eq!(controller.observed(0, &uids[0]), (0, false), "they do not run");
    let observed = |what, expected| {
        let seen = || controller.observed(0, &uids[0]) == expected;
        wait::wait_until(what, GENEROUS, seen);
    };
    let pod = world.a.pod(2);
    let container = kubelet.make_container(Qos::Burstable, &uids[0]);
    let process = Probe::start(&Place::new(&pod.netns, &container), &Job::Idle);
    observed("a pod that runs", (1, true));
    // An agent that begins anew does not take it back.
    agent.kill();
    agent.launch();
    agent.wait_for_status("the controller", |status| directory(status).current);
    assert_eq!(controller.observed(0, &uids[0]), (1, true));
    drop(process);
    observed("a pod that has ended", (0, false));
}
