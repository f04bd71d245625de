//! Parts of a real cluster are away for a while, under the chart: the API server; a node's runtime, kubelet and kube-proxy; the replica of
//! the controller that leads. What runs goes on, and nothing is said in plaintext.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sheath_tests::cluster::helm::{NAMESPACE, Release};
use sheath_tests::cluster::scene::{LIMIT, PORT, Scene, nginx, url};
use sheath_tests::cluster::servers::{SERVICE_PORT, Servers};
use sheath_tests::cluster::steady::Steady;
use sheath_tests::cluster::turn::Turn;
use sheath_tests::cluster::wrk::{Requests, Reuse};
use sheath_tests::cluster::{NODES, NodeName, WIRE, shared};
use sheath_tests::names::marker;
use sheath_tests::status::Gate;
use sheath_tests::tap::Tap;
use sheath_tests::{kubelet, wait};

/// For how many seconds the API server is away, if not for [`SOME`].
const VARIABLE: &str = "SHEATH_API_SERVER_AWAY";

/// Long enough for the leader of the controller's replicas to lose its Lease.
const SOME: u64 = 20;

/// For longer than any scenario: an open connection has to live through all of it.
const CONNECTIONS: Duration = Duration::from_secs(3600);

/// A server that the kubelet ends if a probe fails twice, and that is not ready if one does.
struct Probed<'s> {
    scene: &'s Scene<'s>,
    node: NodeName,
    processes: Vec<u32>,
}

impl<'s> Probed<'s> {
    const NAME: &'static str = "probed";

    fn run(scene: &'s Scene<'_>, node: NodeName) -> Self {
        let serve = nginx(&format!(
            "access_log /tmp/access.log; server {{ listen {PORT}; location / {{ return 200 {}; }} }}",
            scene.marker
        ));
        let get =
            format!("httpGet: {{path: /, port: {PORT}}}, periodSeconds: 1, timeoutSeconds: 5");
        let container = format!(
            "command: {serve}
    readinessProbe: {{{get}, failureThreshold: 1}}
    livenessProbe: {{{get}, failureThreshold: 2}}"
        );
        let rest = "terminationGracePeriodSeconds: 1";
        let pod = scene.object(Self::NAME, "web", node, rest, &container);
        scene.cluster.kubectl().apply(&pod).unwrap();
        scene.wait_running(Self::NAME);
        let uid = scene.cluster.uid(&scene.namespace, Self::NAME).unwrap();
        let processes = scene.cluster.pod_processes(node, &uid);
        Self { scene, node, processes }
    }

    /// Lines of its log with all of these words, whoever is away.
    fn logged(&self, words: &[&str]) -> usize {
        // The last one is nginx's, and not the sandbox's.
        let last = self.processes.last().expect("a process of the pod");
        let log = fs::read_to_string(format!("/proc/{last}/root/tmp/access.log")).unwrap();
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    fn probes(&self) -> usize {
        self.logged(&["kube-probe/"])
    }

    /// The kubelet has gone on probing since, and no probe has failed.
    fn assert_green(&self, since: usize) {
        let (probes, good) = (self.probes(), self.logged(&["kube-probe/", "\" 200 "]));
        assert!(probes > since + 5 && good == probes, "{good} of {probes} probes, {since} before");
        let uid = self.scene.cluster.uid(&self.scene.namespace, Self::NAME).unwrap();
        let now = self.scene.cluster.pod_processes(self.node, &uid);
        assert_eq!(now, self.processes, "the container was restarted");
    }
}

/// Waits until all of it is served, to a client of its own. Returns the URLs of the server with probes, and of a Service.
fn open(scene: &Scene<'_>, servers: &Servers<'_>) -> [String; 2] {
    let [a, _] = NODES;
    scene.run("client", "client", a);
    servers.wait_ready();
    let probed = scene.addresses(Probed::NAME).swap_remove(0);
    let urls = [url(&probed, PORT), url(&servers.address(), SERVICE_PORT)];
    for url in &urls {
        scene.wait_answered("client", url);
    }
    urls
}

/// On connections that stay, and on one for each request, to both.
fn load<'s>(scene: &'s Scene<'_>, [direct, service]: &[String; 2]) -> Steady<'s> {
    let asked = [
        (direct.as_str(), Reuse::KeepAlive),
        (direct.as_str(), Reuse::Never),
        (service.as_str(), Reuse::KeepAlive),
        (service.as_str(), Reuse::Never),
    ];
    Steady::start(scene, "steady", NODES[0], &asked)
}

#[track_caller]
fn assert_went_on(requests: &[Requests], least: u64) {
    println!("{requests:#?}");
    assert!(requests.iter().all(|one| one.answered >= least), "no load: {requests:?}");
    assert!(requests.iter().all(|one| one.failed() == 0), "requests failed: {requests:?}");
}

/// A pod that is new is let start, and served.
fn serve_another(scene: &Scene<'_>, name: &str, urls: &[String]) {
    let [a, _] = NODES;
    let begun = Instant::now();
    scene.run(name, "client", a);
    for url in urls {
        scene.wait_answered(name, url);
    }
    println!("{name}: served after {:.1?}", begun.elapsed());
}

/// Running pods go on, new flows between known pods go on, new pods are held: a cgroup that a kubelet might have made, in a network in
/// which anybody else is served.
#[test]
fn while_the_api_server_is_away_running_pods_go_on_and_new_ones_are_held() {
    let seconds = std::env::var(VARIABLE).map_or(SOME, |number| number.parse().expect(VARIABLE));
    let [a, b] = NODES;
    let turn = shared::turn();
    let cluster = turn.cluster;
    let scene = Scene::new(&turn, Some("require"));
    let elsewhere = Scene::new(&turn, None);
    let release = Release::install(&turn, &json!({})).unwrap();
    let servers = Servers::deploy(&scene, 2, CONNECTIONS);
    let probed = Probed::run(&scene, b);
    let urls = open(&scene, &servers);
    elsewhere.run("open", "web", b);
    elsewhere.run("neighbour", "client", a);
    let stranger = url(&elsewhere.addresses("open").swap_remove(0), PORT);
    let neighbour = cluster.uid(&elsewhere.namespace, "neighbour").unwrap();
    let neighbour = cluster.pod_processes(a, &neighbour)[0];
    let ask = |cgroup: &str| {
        let curl = ["curl", "-sS", "-m", "5", stranger.as_str()];
        cluster.run_beside(a, neighbour, cgroup, &curl).unwrap()
    };
    let load = load(&scene, &urls);
    let tap = Tap::new(&cluster.node(a).netns, WIRE);
    let probes = probed.probes();

    let away = cluster.without_api_server().unwrap();
    thread::sleep(Duration::from_secs(seconds));
    let status = release.status_on_node(a).unwrap();
    let is_told = |subject: &str| {
        let of_it = |it: &&sheath_tests::status::Problem| it.subject == subject;
        let problem = status.problems.iter().find(of_it);
        problem.is_some_and(|it| it.problem.contains("what is known is as of"))
    };
    assert!(is_told("pods") && is_told("namespaces"), "{:?}", status.problems);
    let known = ask("tools");
    assert_eq!(String::from_utf8_lossy(&known.stdout), elsewhere.marker, "{known:?}");
    // The kubelet ends what runs where it has no pod, and may be quicker.
    let as_pod = || ask(&format!("kubepods/besteffort/pod{}", kubelet::uid()));
    let unknown = wait::try_for(LIMIT, || Some(as_pod()).filter(|it| it.status.signal().is_none()));
    let unknown = unknown.expect("an answer");
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(said.contains("Failed to connect"), "a new pod is not held: {unknown:?}");
    assert_went_on(&load.stop().unwrap(), seconds);
    let since = Instant::now();
    away.end().unwrap();
    probed.assert_green(probes);

    serve_another(&scene, "later", &urls);
    println!("all as before {:.1?} after the API server was started", since.elapsed());
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
    assert!(tap.sightings(&elsewhere.marker) > 0, "the tap sees nothing");
}

/// A pod that says a secret all the time, to somebody who is protected and to somebody who is not.
fn talker(scene: &Scene<'_>, to: [&str; 2], secret: &str) -> String {
    let [one, other] = to.map(|url| format!("curl -s -m 2 -o /tmp/answer {url}{secret}"));
    let script = format!("while :; do {one}; {other}; sleep 0.2; done");
    let container = format!("command: [sh, -c, {script:?}]");
    let rest = "terminationGracePeriodSeconds: 1";
    scene.object("talker", "client", NODES[0], rest, &container)
}

/// As the Lease has it: the name of a pod, and its address.
fn leader(turn: &Turn<'_>) -> Option<String> {
    let space = format!("--namespace={NAMESPACE}");
    let lease = turn.cluster.kubectl().get(["lease", "sheath-controller", &space]).ok()?;
    lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
}

/// Kills the replica that leads, which is not started again.
fn end_leader(turn: &Turn<'_>, holder: &str) {
    let (cluster, space) = (turn.cluster, format!("--namespace={NAMESPACE}"));
    let (pod, _) = holder.split_once('/').expect("a name and an address");
    let object: Value = cluster.kubectl().get(["pod", pod, &space]).unwrap();
    let is_its = |node: &NodeName| object["spec"]["nodeName"] == node.as_str();
    let node = NODES.into_iter().find(is_its).expect("a node");
    cluster.kill_pod(node, NAMESPACE, pod).unwrap();
    let now = ["--force", "--grace-period=0", "--wait=false"];
    cluster.kubectl().run(["delete", "pod", pod, &space].into_iter().chain(now)).unwrap();
}

/// containerd, the kubelet and kube-proxy of a node are killed and started again one after the other, then the leader of the controller's
/// replicas is.
#[test]
fn a_nodes_programs_and_the_controllers_leader_are_killed_and_pods_go_on() {
    let [a, b] = NODES;
    let turn = shared::turn();
    let cluster = turn.cluster;
    let kubectl = cluster.kubectl();
    let scene = Scene::new(&turn, Some("require"));
    let elsewhere = Scene::new(&turn, None);
    let release = Release::install(&turn, &json!({})).unwrap();
    let servers = Servers::deploy(&scene, 2, CONNECTIONS);
    let probed = Probed::run(&scene, b);
    let urls = open(&scene, &servers);
    elsewhere.run("open", "web", b);
    let stranger = url(&elsewhere.addresses("open").swap_remove(0), PORT);
    let secret = marker();
    kubectl.apply(&talker(&scene, [&urls[0], &stranger], &secret)).unwrap();
    scene.wait_running("talker");
    let talker = cluster.uid(&scene.namespace, "talker").unwrap();
    let load = load(&scene, &urls);
    let tap = Tap::new(&cluster.node(a).netns, WIRE);

    let gate = || release.status_on_node(a).unwrap().gate.expect("a gate");
    let is_in_force = |gate: &Gate| gate.in_force == "nri" && gate.problem.is_empty();
    assert!(is_in_force(&gate()), "{:?}", gate());
    let away = cluster.without(a, "containerd").unwrap();
    wait::wait_until("no runtime", LIMIT, || gate().in_force != "nri");
    away.end().unwrap();
    wait::wait_until("the gate to be registered again", LIMIT, || is_in_force(&gate()));
    let admitted = gate().admitted;
    serve_another(&scene, "after-containerd", &urls);
    assert!(gate().admitted > admitted, "the runtime has not asked");

    // Whose object is deleted while nobody is there who ends it lives on, and is nobody's any more.
    let away = cluster.without(a, "kubelet").unwrap();
    wait::wait_until("the talker is heard", LIMIT, || probed.logged(&[&secret]) > 0);
    let space = format!("--namespace={}", scene.namespace);
    kubectl.run(["delete", "pod", "talker", &space, "--force", "--grace-period=0"]).unwrap();
    wait::wait_until("the talker to be held", LIMIT, || {
        let pods = release.status_on_node(a).unwrap().pods.expect("pods");
        pods.held.iter().any(|held| held.uid == talker)
    });
    let heard = probed.logged(&[&secret]);
    thread::sleep(Duration::from_secs(2));
    assert!(!cluster.pod_processes(a, &talker).is_empty(), "the talker has ended");
    // One may have been under way.
    assert!(probed.logged(&[&secret]) <= heard + 1, "the talker is heard although it is held");
    away.end().unwrap();
    wait::wait_until("the kubelet to end the talker", LIMIT, || {
        cluster.pod_processes(a, &talker).is_empty()
    });
    serve_another(&scene, "after-kubelet", &urls);

    let away = cluster.without(a, "kube-proxy").unwrap();
    thread::sleep(Duration::from_secs(2));
    away.end().unwrap();

    let before = wait::wait_for("a leader", LIMIT, || leader(&turn));
    end_leader(&turn, &before);
    let since = Instant::now();
    wait::wait_until("another leader", LIMIT, || leader(&turn).is_some_and(|it| it != before));
    println!("another leads after {:.1?}", since.elapsed());
    serve_another(&scene, "after-leader", &urls);

    assert_went_on(&load.stop().unwrap(), 10);
    for text in [&scene.marker, &secret] {
        assert_eq!(tap.sightings(text), 0, "plaintext on the wire");
    }
    elsewhere.run("neighbour", "client", a);
    elsewhere.wait_answered("neighbour", &stranger);
    assert!(tap.sightings(&elsewhere.marker) > 0, "the tap sees nothing");
}
