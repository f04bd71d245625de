//! Pods are found by watching an API server: one that lists in pages, forgets versions, is slow, restarts, goes back to an older
//! state, or refuses.

use std::time::Duration;

use serde_json::{Value, json};
use sheath_tests::agent::{self, Agent};
use sheath_tests::api_server::{ApiServer, Kind};
use sheath_tests::config::{self, Kubernetes};
use sheath_tests::kubelet::{Depth, Driver, Kubelet, Qos};
use sheath_tests::status::Status;
use sheath_tests::world::World;

/// A node whose agent asks an API server for its pods.
pub struct Cluster {
    pub api: ApiServer,
    pub kubelet: Kubelet,
    pub world: World,
}

impl Cluster {
    fn new() -> Self {
        let world = World::new();
        let api = ApiServer::start(&world.a.netns);
        let kubelet = Kubelet::start(&world.a.cgroup, Driver::Systemd, Depth::Flat);
        Self { api, kubelet, world }
    }

    pub fn agent(&self) -> Agent {
        Agent::start(&self.world, &self.world.a, self.config())
    }

    /// What an agent of node A is told.
    pub fn config(&self) -> config::Config {
        let mut config = agent::config(&self.world, &self.world.a);
        let kubernetes = Kubernetes::new(self.api.kubeconfig());
        config.kubernetes = Some(Kubernetes { kubelet: config::Kubelet::None, ..kubernetes });
        config.capture.pods = Some(self.kubelet.settings());
        config
    }

    /// With one namespace, `shop`, and what its label says.
    pub fn with_shop(label: Option<&str>) -> Self {
        let cluster = Self::new();
        cluster.label(label);
        cluster
    }

    fn label(&self, label: Option<&str>) {
        self.api.put(Kind::Namespace, namespace("shop", label));
    }

    /// A pod of the namespace `shop` on this node.
    pub fn run(&self, number: u32) {
        self.api.put(Kind::Pod, pod("shop", number, "node-a"));
    }
}

fn namespace(name: &str, label: Option<&str>) -> Value {
    let labels = label.map(|label| json!({"sheath.dev/protect": label}));
    json!({"metadata": {"name": name, "uid": format!("uid of {name}"), "labels": labels}})
}

fn pod(namespace: &str, number: u32, node: &str) -> Value {
    json!({
        "metadata": {
            "namespace": namespace,
            "name": format!("web-{number}"),
            "uid": format!("00000000-0000-4000-8000-{number:012}"),
        },
        "spec": {"nodeName": node, "serviceAccountName": "web", "containers": []},
        "status": {"phase": "Running"},
    })
}

/// The names of the agent's workloads.
fn names(status: &Status) -> Vec<String> {
    let mut names: Vec<_> = status.workloads.iter().map(|workload| workload.name.clone()).collect();
    names.sort();
    names
}

#[track_caller]
fn wait_for(agent: &Agent, what: &str, expected: &[&str]) {
    agent.wait_for_status(what, |status| names(status) == expected);
}

/// The problem that status has with a subject.
fn problem(status: &Status, subject: &str) -> Option<String> {
    let problem = status.problems.iter().find(|problem| problem.subject == subject)?;
    Some(problem.problem.clone())
}

#[track_caller]
fn wait_for_problem(agent: &Agent, subject: &str, words: &str) {
    agent.wait_for_status(&format!("a problem with {subject}: {words}"), |status| {
        problem(status, subject).is_some_and(|problem| problem.contains(words))
    });
}

#[test]
fn pods_of_the_node_are_workloads_as_their_labels_say() {
    let cluster = Cluster::with_shop(Some("require"));
    cluster.api.put(Kind::Namespace, namespace("other", None));
    cluster.run(1);
    cluster.api.put(Kind::Pod, pod("shop", 2, "node-b"));
    cluster.api.put(Kind::Pod, pod("other", 3, "node-a"));
    let agent = cluster.agent();
    // They are there as soon as it is ready.
    let status = agent.status();
    assert_eq!(names(&status), ["shop/web-1"]);
    let workload = status.workload("shop/web-1");
    assert_eq!(workload.spiffe_id, "spiffe://example.org/ns/shop/sa/web");
    cluster.run(4);
    wait_for(&agent, "a new pod", &["shop/web-1", "shop/web-4"]);
    let mut unbound = pod("shop", 5, "node-a");
    unbound["spec"]["nodeName"] = Value::Null;
    cluster.api.put(Kind::Pod, unbound);
    cluster.run(5);
    wait_for(&agent, "a pod that is bound", &["shop/web-1", "shop/web-4", "shop/web-5"]);
    cluster.api.delete(Kind::Pod, "shop/web-1");
    let mut over = pod("shop", 4, "node-a");
    over["status"]["phase"] = json!("Succeeded");
    cluster.api.put(Kind::Pod, over);
    wait_for(&agent, "pods that are gone or over", &["shop/web-5"]);
    cluster.label(None);
    wait_for(&agent, "a namespace that is selected no more", &[]);
    cluster.api.put(Kind::Namespace, namespace("other", Some("prefer")));
    wait_for(&agent, "a namespace that is selected", &["other/web-3"]);
}

#[test]
fn a_long_list_of_pods_is_read_in_pages() {
    let cluster = Cluster::with_shop(Some("require"));
    cluster.api.behave(|behaviour| behaviour.page = 7);
    for number in 0..30 {
        cluster.run(number);
    }
    let agent = cluster.agent();
    assert_eq!(agent.status().workloads.len(), 30);
    assert_eq!(cluster.api.requests().pages[&Kind::Pod], 5);
}

#[test]
fn what_changes_while_the_server_forgets_versions_is_seen() {
    let cluster = Cluster::with_shop(Some("require"));
    cluster.run(1);
    cluster.run(2);
    let agent = cluster.agent();
    cluster.api.wait_watched(Kind::Pod, 1);
    cluster.run(3);
    cluster.api.delete(Kind::Pod, "shop/web-1");
    cluster.api.forget_history();
    cluster.api.end_watches();
    wait_for(&agent, "a new list", &["shop/web-2", "shop/web-3"]);
    assert!(cluster.api.requests().gone > 0, "nobody was told that a version is gone");
}

#[test]
fn bookmarks_spare_a_new_list() {
    let cluster = Cluster::with_shop(Some("require"));
    cluster.run(1);
    let agent = cluster.agent();
    cluster.api.wait_watched(Kind::Pod, 1);
    let lists = cluster.api.requests().pages[&Kind::Pod];
    // Pods of another node move the version on, and this agent hears of it by bookmarks alone.
    cluster.api.put(Kind::Pod, pod("shop", 2, "node-b"));
    std::thread::sleep(Duration::from_secs(1));
    cluster.api.forget_history();
    std::thread::sleep(Duration::from_secs(1));
    let watches = cluster.api.requests().watches[&Kind::Pod];
    cluster.api.end_watches();
    sheath_tests::wait::wait_until("another watch", sheath_tests::wait::GENEROUS, || {
        cluster.api.requests().watches[&Kind::Pod] > watches
    });
    cluster.run(3);
    wait_for(&agent, "a change", &["shop/web-1", "shop/web-3"]);
    assert_eq!(cluster.api.requests().pages[&Kind::Pod], lists);
}

#[test]
fn while_the_api_server_is_away_what_is_known_stays_and_status_says_how_old_it_is() {
    let mut cluster = Cluster::with_shop(Some("require"));
    cluster.run(1);
    let mut agent = cluster.agent();
    cluster.api.wait_watched(Kind::Pod, 1);
    cluster.api.stop();
    for subject in ["pods", "namespaces"] {
        wait_for_problem(&agent, subject, "cannot be reached");
        wait_for_problem(&agent, subject, "what is known is as of 20");
    }
    assert_eq!(names(&agent.status()), ["shop/web-1"]);
    // An agent that starts meanwhile knows what the one before it knew.
    agent.kill();
    agent.launch();
    assert_eq!(names(&agent.status()), ["shop/web-1"]);
    wait_for_problem(&agent, "pods", "cannot be reached");
    cluster.run(2);
    cluster.api.start_again();
    wait_for(&agent, "the pod that came meanwhile", &["shop/web-1", "shop/web-2"]);
    agent.wait_for_status("no problem any more", |status| status.problems.is_empty());
}

/// An etcd that is restored from an older snapshot: versions that were seen do not exist yet, and pods are gone without anybody
/// saying so.
#[test]
fn a_cluster_that_goes_back_in_time_is_followed() {
    let cluster = Cluster::with_shop(Some("require"));
    cluster.run(1);
    let snapshot = cluster.api.snapshot();
    for number in 2..6 {
        cluster.run(number);
    }
    let agent = cluster.agent();
    assert_eq!(agent.status().workloads.len(), 5);
    cluster.api.wait_watched(Kind::Pod, 1);
    cluster.api.restore(snapshot);
    wait_for(&agent, "what there was then", &["shop/web-1"]);
    cluster.run(7);
    wait_for(&agent, "what comes now", &["shop/web-1", "shop/web-7"]);
}

#[test]
fn a_refusal_is_told_with_its_cause_and_ends_when_it_ends() {
    let cluster = Cluster::with_shop(Some("require"));
    cluster.run(1);
    let agent = cluster.agent();
    cluster.api.wait_watched(Kind::Pod, 1);
    for (code, words) in [
        (403, "the service account lacks a right"),
        (401, "the token has expired"),
        (500, "refuses (500): out of order"),
    ] {
        cluster.api.behave(|behaviour| behaviour.refuse = Some((code, "out of order")));
        wait_for_problem(&agent, "pods", words);
        assert_eq!(names(&agent.status()), ["shop/web-1"], "{code}");
    }
    cluster.api.behave(|behaviour| behaviour.refuse = None);
    agent.wait_for_status("no problem any more", |status| status.problems.is_empty());
    cluster.run(2);
    wait_for(&agent, "a new pod", &["shop/web-1", "shop/web-2"]);
}

#[test]
fn a_slow_api_server_keeps_nobody_from_starting() {
    let cluster = Cluster::with_shop(Some("require"));
    cluster.run(1);
    cluster.api.behave(|behaviour| behaviour.delay = Duration::from_secs(6));
    let agent = cluster.agent();
    assert_eq!(names(&agent.status()), [""; 0]);
    wait_for(&agent, "the pod, later", &["shop/web-1"]);
}

#[test]
fn a_label_that_makes_no_sense_is_told_and_leaves_everything_as_it_was() {
    let cluster = Cluster::with_shop(Some("require"));
    cluster.run(1);
    let agent = cluster.agent();
    cluster.label(Some("requrie"));
    wait_for_problem(&agent, "shop/web-1", "write `require`, `prefer` or `false`");
    // Nothing was ever decided about this one.
    cluster.run(2);
    wait_for_problem(&agent, "shop/web-2", "write `require`, `prefer` or `false`");
    assert_eq!(names(&agent.status()), ["shop/web-1"]);
    cluster.label(Some("prefer"));
    wait_for(&agent, "a label that makes sense", &["shop/web-1", "shop/web-2"]);
    agent.wait_for_status("no problem any more", |status| status.problems.is_empty());
}

#[test]
fn what_cannot_be_protected_is_told() {
    let cluster = Cluster::with_shop(Some("require"));
    cluster.api.put(Kind::Namespace, namespace("kube-system", Some("require")));
    cluster.api.put(Kind::Pod, pod("kube-system", 1, "node-a"));
    let mut mirror = pod("shop", 2, "node-a");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "0"});
    cluster.api.put(Kind::Pod, mirror);
    let mut sandboxed = pod("shop", 3, "node-a");
    sandboxed["spec"]["runtimeClassName"] = json!("gvisor");
    cluster.api.put(Kind::Pod, sandboxed);
    let agent = cluster.agent();
    wait_for_problem(&agent, "kube-system/web-1", "the cluster needs them");
    wait_for_problem(&agent, "shop/web-2", "static pods cannot be protected");
    wait_for_problem(&agent, "shop/web-3", "kubernetes.runtimeClasses");
    assert_eq!(names(&agent.status()), ["shop/web-3"]);
    // Nobody vouches for what the agent does not see.
    let status = agent.status();
    let identity = &status.workload("shop/web-3").identity;
    assert!(identity.problem.contains("runtime class"), "{identity:?}");
}

#[test]
fn a_check_says_whether_the_api_server_tells_what_is_asked() {
    let mut cluster = Cluster::with_shop(Some("require"));
    let agent = cluster.agent();
    let said = || {
        let output = agent.sheath_check();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (_, text) = said();
    assert!(text.contains("the API server lists no pod of the node `node-a`"), "{text}");
    cluster.run(1);
    let (_, text) = said();
    assert!(text.contains("the API server lists the pods of the node `node-a`"), "{text}");
    assert!(text.contains("the API server lists namespaces"), "{text}");
    cluster.api.behave(|behaviour| behaviour.refuse = Some((403, "pods is forbidden")));
    let (is_well, text) = said();
    assert!(!is_well && text.contains("pods is forbidden; the service account lacks"), "{text}");
    cluster.api.behave(|behaviour| behaviour.refuse = None);
    cluster.api.stop();
    let (_, text) = said();
    assert!(text.contains("pods cannot be listed: the API server cannot be reached"), "{text}");
}

/// The uids of the pods that are held.
fn held(status: &Status) -> Vec<String> {
    let pods = status.pods.as_ref().expect("pods in the status");
    pods.held.iter().map(|pod| pod.uid.clone()).collect()
}

pub fn uid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

#[test]
fn a_pod_is_held_until_the_api_server_tells_of_it() {
    let cluster = Cluster::with_shop(Some("require"));
    cluster.run(1);
    let agent = cluster.agent();
    // Known before it is there, as it mostly is.
    let known = cluster.kubelet.make_pod(Qos::BestEffort, &uid(1));
    agent.wait_for_status("the pod that was known", |status| {
        status.workload("shop/web-1").cgroups.iter().any(|cgroup| cgroup.id == known.id())
    });
    // The kubelet has heard of these first.
    let pods = [2, 3].map(|number| cluster.kubelet.make_pod(Qos::Burstable, &uid(number)));
    agent.wait_for_status("pods that nobody knows", |status| held(status) == [uid(2), uid(3)]);
    cluster.run(2);
    cluster.api.put(Kind::Namespace, namespace("other", None));
    cluster.api.put(Kind::Pod, pod("other", 3, "node-a"));
    agent.wait_for_status("a workload, and a pod that is left alone", |status| {
        let is_enrolled = |workload: &sheath_tests::status::Workload| {
            workload.cgroups.iter().any(|it| it.id == pods[0].id())
        };
        held(status).is_empty() && status.workloads.iter().any(is_enrolled)
    });
}

/// Nothing that was decided is forgotten with the API server away, and nothing is guessed.
#[test]
fn while_the_api_server_is_away_new_pods_are_held() {
    let mut cluster = Cluster::with_shop(Some("require"));
    cluster.api.put(Kind::Namespace, namespace("other", None));
    cluster.run(1);
    cluster.api.put(Kind::Pod, pod("other", 2, "node-a"));
    let mut agent = cluster.agent();
    cluster.api.stop();
    let pods = [1, 2, 3].map(|number| cluster.kubelet.make_pod(Qos::Guaranteed, &uid(number)));
    let is_right = |status: &Status| {
        let of_pod = status.workload("shop/web-1").cgroups.iter().any(|it| it.id == pods[0].id());
        of_pod && held(status) == [uid(3)]
    };
    agent.wait_for_status("the pod that nobody knows", is_right);
    agent.kill();
    agent.launch();
    agent.wait_for_status("the same, of the next agent", is_right);
}
