//! Programs attach at the cgroup of a node's pods: there they run before those of the cgroups above it, whoever has attached these, and
//! in whichever order.

use std::net::Ipv4Addr;
use std::sync::Arc;

use sheath_tests::agent::Agent;
use sheath_tests::cgroup::Cgroup;
use sheath_tests::config::{Config, Select};
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::kubelet::{self, Depth, Driver, Kubelet, Qos};
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Setting, any, client, configs, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Step};
use sheath_tests::tap::Tap;
use sheath_tests::translator::{Attachment, Translator};
use sheath_tests::world::{Family, Pod, World};

/// Node A has a kubelet and a pod that calls the server of node B. What is above the pods' cgroup is the kubelet's, and not the agent's.
struct Scene {
    _running: [Probe; 2],
    _agent_b: Agent,
    pod: Pod,
    container: Arc<Cgroup>,
    server: Pod,
    above: Arc<Cgroup>,
    _kubelet: Kubelet,
    a: Config,
    world: World,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let above = world.a.cgroup.child("kubelet-of-the-node");
        let kubelet = Kubelet::start(&above, Driver::Cgroupfs, Depth::Flat);
        let uid = kubelet::uid();
        let (mut a, b) = configs(&world, Setting::Pods);
        a.workloads[0].select = Select::PodUid(uid.clone());
        a.capture.pods = Some(kubelet.settings());
        a.capture.cgroup = kubelet.root();
        let (pod, server_pod) = (world.a.pod(2), world.b.pod(2));
        let container = kubelet.make_container(Qos::Burstable, &uid);
        let place = Place::new(&server_pod.netns, &world.b.host("web").cgroup);
        let running = [
            Probe::start(&place, &server(any(Family::V4, PORT), &[Step::Echo])),
            Probe::start(&Place::new(&pod.netns, &container), &Job::Idle),
        ];
        let agent_b = Agent::start(&world, &world.b, b);
        agent_b.wait_enrolled("web", &place);
        Self {
            _running: running,
            _agent_b: agent_b,
            pod,
            container,
            server: server_pod,
            above,
            _kubelet: kubelet,
            a,
            world,
        }
    }

    fn place(&self) -> Place {
        Place::new(&self.pod.netns, &self.container)
    }

    /// Somebody who has whoever is below the kubelet's cgroup dial node B itself in place of the server.
    fn translate(&self, attachment: Attachment) -> std::io::Result<Translator> {
        let v4 = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(address) => address,
            std::net::IpAddr::V6(other) => panic!("{other}"),
        };
        let addresses: [Ipv4Addr; 2] =
            [v4(self.server.addresses.of(Family::V4)), v4(self.world.b.addresses.of(Family::V4))];
        Translator::attach(&self.above, addresses, attachment)
    }

    /// The pod reaches the server that it has asked for, by TLS.
    #[track_caller]
    fn assert_served(&self, agent: &Agent, tap: &Tap) {
        let (to, text) = (self.server.addresses.at(Family::V4, PORT), marker());
        let seen = probe::run(&self.place(), &client(to, &say(&text)));
        assert_eq!((seen.ended_by(), &*seen.last().text), (None, &*text), "{seen:?}");
        assert_ciphertext(tap, PORT, &text);
        agent.wait_for_access("the flow", |access| {
            access.is("outbound", "ok") && access.destination == to.to_string()
        });
    }
}

#[test]
fn another_ones_program_above_the_pods_is_asked_last_whoever_came_first() {
    // The translation works where Sheath is not: else the rest says nothing.
    let scene = Scene::new();
    let open = scene.world.b.host("open");
    let _open =
        Probe::start(&open, &server(any(Family::V4, 7070), &[Step::Send("translated".to_owned())]));
    let to = scene.server.addresses.at(Family::V4, 7070);
    let ask = || probe::run(&scene.place(), &client(to, &[Step::ReceiveToEnd]));
    assert!(ask().ended_by().is_some(), "nobody listens there");
    let before = scene.translate(Attachment::Link).unwrap();
    assert_eq!(ask().last().text, "translated");

    // From the beginning: a later flow may take up a session.
    let tap = scene.world.tap();
    let agent = Agent::start(&scene.world, &scene.world.a, scene.a.clone());
    agent.wait_enrolled("client", &scene.place());
    scene.assert_served(&agent, &tap);
    drop(before);
    // Attached later it runs later, too.
    let _after = scene.translate(Attachment::Link).unwrap();
    scene.assert_served(&agent, &tap);
}

/// It is not even asked for pods: the kernel takes those that are attached further down.
#[test]
fn a_program_that_is_attached_without_flags_above_the_pods_keeps_nothing_from_being_captured() {
    let scene = Scene::new();
    let tap = scene.world.tap();
    let mut agent = Agent::start(&scene.world, &scene.world.a, scene.a.clone());
    agent.wait_enrolled("client", &scene.place());
    let _exclusive = scene.translate(Attachment::Exclusive).unwrap();
    scene.assert_served(&agent, &tap);
    let status = agent.status();
    assert!(status.programs.iter().all(|program| program.observed), "{status:#?}");
    // An agent that is started again takes its own links over.
    agent.kill();
    agent.launch();
    agent.wait_enrolled("client", &scene.place());
    scene.assert_served(&agent, &tap);
}

/// Nobody may attach anything below such a program. That is said, with what to do.
#[test]
fn a_program_without_flags_that_was_there_before_keeps_the_agent_from_starting() {
    let scene = Scene::new();
    let _exclusive = scene.translate(Attachment::Exclusive).unwrap();
    let agent = Agent::prepare(&scene.world, &scene.world.a, scene.a.clone());
    let output = agent.run_command().output().expect("running sheath");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another program may be attached there exclusively"), "{said}");
    let check = agent.sheath_check();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("attached exclusively to") && !check.status.success(), "{said}");
}
