//! Mistakes of those who run nodes: one that is renamed, and two agents for the same pods. Whatever else follows, nothing is said in
//! plaintext.

use sheath_tests::agent::Agent;
use sheath_tests::kubelet::Qos;
use sheath_tests::names::marker;
use sheath_tests::pair::{any, client, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::Step;
use sheath_tests::tap::Tap;
use sheath_tests::world::{FAMILIES, Pod};

use super::pod_discovery::{Cluster, uid};

/// Where somebody listens who takes all at their word.
const OPEN_PORT: u16 = 9090;

/// A node with one pod, which `require`s protection, and somebody on the other node who has none.
struct Scene {
    cluster: Cluster,
    /// Its network namespace lives as long.
    _pod: Pod,
    place: Place,
    secret: String,
    tap: Tap,
    _open: Vec<Probe>,
}

impl Scene {
    fn new() -> Self {
        let cluster = Cluster::with_shop(Some("require"));
        cluster.run(1);
        let pod = cluster.world.a.pod(2);
        let cgroup = cluster.kubelet.make_container(Qos::Burstable, &uid(1));
        let place = Place::new(&pod.netns, &cgroup);
        let open = cluster.world.b.host("open");
        let open = FAMILIES
            .map(|family| Probe::start(&open, &server(any(family, OPEN_PORT), &[Step::Echo])));
        let tap = cluster.world.tap();
        Self { cluster, _pod: pod, place, secret: marker(), tap, _open: open.into() }
    }

    fn wait_protected(&self, agent: &Agent) {
        agent.wait_for_status("the pod is protected", |status| {
            status.workloads.iter().any(|it| it.name == "shop/web-1" && !it.cgroups.is_empty())
        });
    }

    /// The pod is refused wherever nobody is protected.
    #[track_caller]
    fn assert_silent(&self, when: &str) {
        for family in FAMILIES {
            let target = self.cluster.world.b.extra.at(family, OPEN_PORT);
            let seen = probe::run(&self.place, &client(target, &say(&self.secret)));
            assert!(seen.ended_by().is_some(), "{when}, {family:?}: {seen:?}");
        }
        assert_eq!(self.tap.sightings(&self.secret), 0, "{when}: plaintext on the wire");
    }
}

#[test]
fn the_pods_of_a_node_that_is_renamed_say_nothing_in_plaintext() {
    let scene = Scene::new();
    let mut agent = scene.cluster.agent();
    scene.wait_protected(&agent);
    scene.assert_silent("as ever");
    agent.kill();
    // The API server has the node's pods under its old name.
    agent.reconfigure(|config| config.node = "node-z".to_owned());
    agent.launch();
    scene.assert_silent("under another name");
    agent.wait_for_status("a pod of nobody's is held", |status| {
        let pods = status.pods.as_ref().expect("pods in the status");
        pods.known && pods.held.iter().any(|pod| pod.uid == uid(1))
    });
    scene.assert_silent("held");
    agent.kill();
    agent.reconfigure(|config| config.node = "node-a".to_owned());
    agent.launch();
    scene.wait_protected(&agent);
    scene.assert_silent("under its own name");
}

#[test]
fn two_agents_for_the_same_pods_say_nothing_in_plaintext() {
    let scene = Scene::new();
    let mut first = scene.cluster.agent();
    scene.wait_protected(&first);
    let mut config = scene.cluster.config();
    config.kubernetes.as_mut().unwrap().node = Some(config.node.clone());
    config.node.push_str("-second");
    config.instance.push_str("-second");
    config.run_dir.push_str("-second");
    let mut second = Agent::start(&scene.cluster.world, &scene.cluster.world.a, config);
    scene.wait_protected(&second);
    scene.assert_silent("with two agents");
    first.kill();
    scene.assert_silent("with the second alone");
    second.kill();
    scene.assert_silent("with none");
}
