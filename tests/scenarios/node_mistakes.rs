//! Mistakes of those who run nodes: one that is renamed, two agents for the same pods, and an agent with the token of another node. Whatever
//! else follows, nothing is said in plaintext.

use serde_json::json;
use sheath_tests::agent::Agent;
use sheath_tests::kubelet::Qos;
use sheath_tests::names::marker;
use sheath_tests::pair::{any, client, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Step};
use sheath_tests::tap::Tap;
use sheath_tests::world::{FAMILIES, Pod, World};

use super::cluster_directory;
use super::pod_discovery::{Cluster, uid};

/// Where somebody listens who takes all at their word.
const OPEN_PORT: u16 = 9090;

/// A node with one pod, which `require`s protection.
struct Scene {
    cluster: Cluster,
    /// Its network namespace lives as long.
    _pod: Pod,
    place: Place,
    stranger: Stranger,
}

/// Somebody on the other node who takes all at their word, and a pod of nobody's that says it.
struct Stranger {
    plain: (Pod, Place),
    tap: Tap,
    _open: Vec<Probe>,
}

impl Stranger {
    fn new(world: &World) -> Self {
        let open = world.b.host("open");
        let open = FAMILIES
            .map(|family| Probe::start(&open, &server(any(family, OPEN_PORT), &[Step::Echo])));
        let pod = world.a.pod(200);
        let place = Place::new(&pod.netns, &world.a.host("plain").cgroup);
        Self { plain: (pod, place), tap: world.tap(), _open: open.into() }
    }

    /// A pod is refused, and what it would have said is nowhere. The same of somebody who is not protected arrives, and is seen.
    #[track_caller]
    fn assert_hears_nothing_of(&self, world: &World, place: &Place, when: &str) {
        for family in FAMILIES {
            let target = world.b.extra.at(family, OPEN_PORT);
            let [secret, control] = [marker(), marker()];
            let seen = probe::run(place, &client(target, &say(&secret)));
            assert!(seen.ended_by().is_some(), "{when}, {family:?}: {seen:?}");
            assert_eq!(self.tap.sightings(&secret), 0, "{when}, {family:?}: plaintext on the wire");
            let seen = probe::run(&self.plain.1, &client(target, &say(&control)));
            let heard = (seen.ended_by(), seen.last().text);
            assert_eq!(heard, (None, control.clone()), "{when}, {family:?}: nobody hears anything");
            assert!(self.tap.sightings(&control) > 0, "{when}, {family:?}: the tap sees nothing");
        }
    }
}

impl Scene {
    fn new() -> Self {
        let cluster = Cluster::with_shop(Some("require"));
        cluster.run(1);
        let pod = cluster.world.a.pod(2);
        let cgroup = cluster.kubelet.make_container(Qos::Burstable, &uid(1));
        let place = Place::new(&pod.netns, &cgroup);
        let stranger = Stranger::new(&cluster.world);
        Self { cluster, _pod: pod, place, stranger }
    }

    fn wait_protected(&self, agent: &Agent) {
        agent.wait_for_status("the pod is protected", |status| {
            status.workloads.iter().any(|it| it.name == "shop/web-1" && !it.cgroups.is_empty())
        });
    }

    /// The pod is refused wherever nobody is protected.
    #[track_caller]
    fn assert_silent(&self, when: &str) {
        self.stranger.assert_hears_nothing_of(&self.cluster.world, &self.place, when);
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

/// The API has the pods that run here on the node whose name the agent was given, and the controller knows by its token that it is on another:
/// it has no say about these pods.
#[test]
fn an_agent_with_the_token_of_another_node_has_no_identities_and_its_pods_say_nothing() {
    let mut cluster = cluster_directory::Cluster::with(|config| {
        config.kubernetes.as_mut().unwrap().node = Some("node-b".to_owned());
    });
    cluster.namespace("shop", Some("require"));
    let pod = cluster.run_as("shop", 2, |pod| pod["spec"]["nodeName"] = json!("node-b"));
    let stranger = Stranger::new(&cluster.world);
    let _idle = Probe::start(&pod.place(), &Job::Idle);
    cluster.agent.wait_for_status("a pod without an identity", |status| {
        let all = status.workloads.iter();
        all.filter(|it| it.name == "shop/pod-2")
            .any(|it| it.svid.is_none() && it.identity.problem.contains("there is no pod"))
    });
    let silent = |cluster: &cluster_directory::Cluster, when: &str| {
        stranger.assert_hears_nothing_of(&cluster.world, &pod.place(), when);
    };
    silent(&cluster, "with the name of another node");
    // Under its own name it has none of these pods, and they are held.
    cluster.agent.kill();
    cluster.agent.reconfigure(|config| config.kubernetes.as_mut().unwrap().node = None);
    cluster.agent.launch();
    silent(&cluster, "with its own name");
    // Where the API has the pod on this node, all is well.
    cluster.tell("shop", 2, |_| {});
    cluster.agent.wait_for_status("an identity", |status| {
        status.workloads.iter().any(|it| it.name == "shop/pod-2" && it.svid.is_some())
    });
    silent(&cluster, "with an identity");
}
