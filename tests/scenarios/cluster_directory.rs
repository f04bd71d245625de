//! A controller, an API server and an agent: pods call each other by their addresses, and nobody has written who is where.

use std::sync::Arc;

use serde_json::{Value, json};
use sheath_tests::agent::{self, Agent};
use sheath_tests::api_server::{ApiServer, Behaviour, Kind};
use sheath_tests::cgroup::Cgroup;
use sheath_tests::config::{self, Identity, Kubernetes, OfController};
use sheath_tests::controller::{self, Controller};
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::kubelet::{Depth, Driver, Kubelet, Qos};
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, any, client, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Connection, Step};
use sheath_tests::tap::Tap;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{Family, Pod, World};

/// A cluster with one node. Pods are told by their numbers, which are also the ends of their addresses.
pub struct Cluster {
    pub agent: Agent,
    pub kubelet: Kubelet,
    pub controller: Controller,
    pub api: ApiServer,
    pub world: World,
}

/// A pod that runs.
pub struct Running {
    pub pod: Pod,
    container: Arc<Cgroup>,
}

impl Running {
    pub fn place(&self) -> Place {
        Place::new(&self.pod.netns, &self.container)
    }
}

impl Cluster {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, with changes to the agent's configuration.
    pub fn with(change: impl FnOnce(&mut config::Config)) -> Self {
        Self::under(|_| {}, |_| {}, change)
    }

    /// The same, with an API server that behaves so, and changes to the controller's settings.
    pub fn under(
        behaviour: impl FnOnce(&mut Behaviour),
        settings: impl FnOnce(&mut Value),
        change: impl FnOnce(&mut config::Config),
    ) -> Self {
        let world = World::new();
        let api = ApiServer::start(&world.a.netns);
        api.behave(behaviour);
        controller::know_agent(&api, "node-a", "token of node-a");
        api.put(
            Kind::Node,
            json!({"metadata": {"name": "node-a"}, "spec": {"podCIDRs": ["10.1.1.0/24"]}}),
        );
        let controller = Controller::start(&api, &world.a.netns, "one", settings);
        controller::wait_leads(&api, &controller);
        let roots = controller::wait_roots(&api);
        let kubelet = Kubelet::start(&world.a.cgroup, Driver::Systemd, Depth::Flat);
        let dir = world.dir.path();
        let mut config = agent::config(&world, &world.a);
        config.kubernetes = Some(Kubernetes {
            kubelet: config::Kubelet::None,
            ..Kubernetes::new(api.kubeconfig())
        });
        config.capture.pods = Some(kubelet.settings());
        config.identity = Identity { controller: Some(OfController {}), ..Identity::default() };
        config.controller = Some(config::Controller {
            address: controller.address().to_string(),
            roots: controller::write(dir, "roots.pem", &roots),
            token: controller::write(dir, "token", "token of node-a"),
        });
        change(&mut config);
        let agent = Agent::start(&world, &world.a, config);
        Self { agent, kubelet, controller, api, world }
    }

    pub fn namespace(&self, name: &str, label: Option<&str>) {
        let labels = label.map(|label| json!({"sheath.dev/protect": label}));
        self.api.put(Kind::Namespace, json!({"metadata": {"name": name, "labels": labels}}));
    }

    /// What the API server says of a pod.
    pub fn tell(&self, namespace: &str, number: u8, change: impl FnOnce(&mut Value)) {
        let mut pod = json!({
            "metadata": {"namespace": namespace, "name": format!("pod-{number}"), "uid": uid(number)},
            "spec": {"nodeName": "node-a", "serviceAccountName": format!("account-{number}"), "containers": []},
            "status": {"phase": "Running", "podIP": format!("10.1.1.{number}")},
        });
        change(&mut pod);
        self.api.put(Kind::Pod, pod);
    }

    pub fn run(&self, namespace: &str, number: u8) -> Running {
        self.run_as(namespace, number, |_| {})
    }

    /// The same, with changes to what the API server says of it.
    pub fn run_as(&self, namespace: &str, number: u8, change: impl FnOnce(&mut Value)) -> Running {
        self.tell(namespace, number, change);
        let container = self.kubelet.make_container(Qos::Burstable, &uid(number));
        Running { pod: self.world.a.pod(number), container }
    }

    #[track_caller]
    pub fn wait_for(&self, what: &str, [plain, pending, protected]: [usize; 3]) {
        self.agent.wait_for_status(what, |status| {
            let known = status.directory.as_ref().expect("a directory");
            (known.plain, known.pending, known.protected) == (plain, pending, protected)
        });
    }
}

pub fn uid(number: u8) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

pub fn call(from: &Running, to: &Running, text: &str) -> Connection {
    call_at(&from.place(), &to.pod, text)
}

/// Waits until calls end like this. Until the kernel knows what the agent does, the agent resets them; nobody answers.
#[track_caller]
fn wait_refused(what: &str, errno: i32, call: impl Fn() -> Connection) {
    wait::wait_until(what, GENEROUS, || {
        let seen = call();
        assert!(seen.ended_by().is_some() && seen.last().text.is_empty(), "{what}: {seen:?}");
        seen.error == Some(errno)
    });
}

fn call_at(from: &Place, to: &Pod, text: &str) -> Connection {
    probe::run(from, &client(to.addresses.at(Family::V4, PORT), &say(text)))
}

#[test]
fn pods_find_each_other_protected_pending_or_plain() {
    let cluster = Cluster::new();
    cluster.namespace("shop", Some("require"));
    cluster.namespace("other", None);
    let (caller, web, plain) =
        (cluster.run("shop", 2), cluster.run("shop", 3), cluster.run("other", 4));
    let tap = Tap::new(&cluster.world.a.netns, "pod3");
    let echo =
        |pod: &Running| Probe::start(&pod.place(), &server(any(Family::V4, PORT), &[Step::Echo]));
    let _echo = [echo(&web), echo(&plain)];
    // A process in the caller's namespace, too: so it is served.
    let _idle = Probe::start(&caller.place(), &sheath_tests::script::Job::Idle);
    cluster.wait_for("both are protected", [1, 0, 2]);
    let text = marker();
    let seen = call(&caller, &web, &text);
    assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, text.as_str()), "{seen:?}");
    let access = cluster.agent.wait_for_access("the flow", |access| {
        access.peer_id.ends_with("/ns/shop/sa/account-3") && access.rule == "directory"
    });
    assert_eq!(access.workload, "shop/pod-2");
    assert_eq!(call(&caller, &plain, &text).ended_by(), Some(libc::EPERM));
    assert_ciphertext(&tap, PORT, &text);
    // Its pod is deleted, and another one gets the address before its node says anything of it.
    cluster.api.delete(Kind::Pod, "shop/pod-3");
    cluster.wait_for("one is gone", [1, 0, 1]);
    assert_eq!(call(&caller, &web, &text).ended_by(), Some(libc::ECONNRESET), "nobody is known");
    cluster.tell("shop", 5, |pod| pod["status"]["podIP"] = json!("10.1.1.3"));
    cluster.wait_for("another one is pending", [1, 1, 1]);
    wait_refused("it is pending", libc::ECONNREFUSED, || call(&caller, &web, &text));
    assert_eq!(tap.sightings(&text), 0);
}

#[test]
fn another_leader_says_the_same_and_known_pods_are_served_meanwhile() {
    let mut cluster = Cluster::new();
    cluster.namespace("shop", Some("require"));
    let (caller, web) = (cluster.run("shop", 2), cluster.run("shop", 3));
    let _echo = Probe::start(&web.place(), &server(any(Family::V4, PORT), &[Step::Echo]));
    let _idle = Probe::start(&caller.place(), &sheath_tests::script::Job::Idle);
    cluster.wait_for("both are protected", [0, 0, 2]);
    let served = |what: &str| {
        let seen = call(&caller, &web, what);
        assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, what), "{seen:?}");
    };
    served("before");
    cluster.controller.kill();
    served("meanwhile");
    let epoch = |cluster: &Cluster| cluster.agent.status().directory.expect("a directory").epoch;
    let before = epoch(&cluster);
    let second = Controller::start(&cluster.api, &cluster.world.a.netns, "two", |settings| {
        settings["listen"] = json!(cluster.controller.address().to_string());
        settings["advertise"] = json!(cluster.controller.address().to_string());
    });
    let told = wait::try_for(2 * GENEROUS, || {
        let seen = call(&caller, &web, "all the time");
        assert_eq!(seen.ended_by(), None, "{seen:?}");
        (epoch(&cluster) != before).then_some(())
    });
    let said = || {
        let lines = cluster.agent.log_lines();
        lines.into_iter().filter(|line| !line.contains("sheath::access")).collect::<Vec<_>>()
    };
    assert!(told.is_some(), "no other epoch: {:#?}", said());
    cluster.wait_for("both are protected", [0, 0, 2]);
    drop(second);
}

/// An etcd that is restored from an older snapshot: at an address where somebody is protected there was somebody plain, and the other way
/// round. Until the kubelet has done what the API says now, nobody is taken for whom the API has there.
#[test]
fn a_cluster_that_goes_back_in_time_says_nothing_to_those_who_have_the_addresses_by_now() {
    let cluster = Cluster::new();
    cluster.namespace("shop", Some("require"));
    cluster.namespace("other", None);
    let caller = cluster.run("shop", 2);
    let _idle = Probe::start(&caller.place(), &sheath_tests::script::Job::Idle);
    let [x, y] = [3, 4].map(|number| cluster.world.a.pod(number));
    let taps = ["pod3", "pod4"].map(|name| Tap::new(&cluster.world.a.netns, name));
    let text = marker();
    let start = |number: u8, at: &Pod| {
        let container = cluster.kubelet.make_container(Qos::Burstable, &uid(number));
        let place = Place::new(&at.netns, &container);
        let echo = Probe::start(&place, &server(any(Family::V4, PORT), &[Step::Echo]));
        (place, echo)
    };
    let tell = |namespace: &str, number: u8, at: &Pod| {
        cluster.tell(namespace, number, |pod| {
            pod["status"]["podIP"] = json!(at.addresses.v4.to_string());
        });
    };
    let assert_served = |by: &Pod, account: &str| {
        wait::wait_until("it is served", GENEROUS, || {
            let seen = call_at(&caller.place(), by, &text);
            seen.ended_by().is_none() && seen.last().text == text
        });
        cluster.agent.wait_for_access("the flow", |access| {
            access.is("outbound", "ok") && access.peer_id.ends_with(account)
        });
    };
    let assert_refused = |at: &Pod, errno: i32, what: &str| {
        wait_refused(what, errno, || call_at(&caller.place(), at, &text));
    };

    // Then: one who is plain at x, one who is protected at y.
    tell("other", 3, &x);
    tell("shop", 4, &y);
    let then = (start(3, &x), start(4, &y));
    cluster.wait_for("one is plain", [1, 0, 2]);
    assert_served(&y, "/account-4");
    assert_refused(&x, libc::EPERM, "it is plain");
    let control = marker();
    let heard = call_at(&cluster.world.a.host("bystander"), &x, &control);
    assert_eq!((heard.ended_by(), heard.last().text.as_str()), (None, &*control), "{heard:?}");
    assert!(taps[0].sightings(&control) > 0, "the tap sees nothing");
    let snapshot = cluster.api.snapshot();

    // Now: the other way round.
    for pod in ["other/pod-3", "shop/pod-4"] {
        cluster.api.delete(Kind::Pod, pod);
    }
    drop(then);
    cluster.wait_for("both are gone", [0, 0, 1]);
    tell("shop", 13, &x);
    tell("other", 14, &y);
    let now = (start(13, &x), start(14, &y));
    cluster.wait_for("one is plain", [1, 0, 2]);
    assert_served(&x, "/account-13");
    assert_refused(&y, libc::EPERM, "it is plain");

    cluster.api.restore(snapshot);
    cluster.wait_for("the pods of then, one of which nobody has seen", [1, 1, 1]);
    assert_refused(&x, libc::EPERM, "it is plain again, by the API");
    assert_refused(&y, libc::ECONNREFUSED, "it is not protected yet");
    cluster.agent.wait_for_status("the pod of now to be held", |status| {
        let pods = status.pods.as_ref().expect("pods");
        pods.held.iter().any(|held| held.uid == uid(13))
    });
    let secret = marker();
    for to in [&caller.pod, &y] {
        let refused = call_at(&now.0.0, to, &secret).ended_by();
        assert_eq!(
            refused,
            Some(libc::ECONNREFUSED),
            "whom the API does not have any more is held"
        );
    }

    // The kubelet follows.
    drop(now);
    let _then = (start(3, &x), start(4, &y));
    cluster.wait_for("one is plain", [1, 0, 2]);
    assert_served(&y, "/account-4");
    assert_refused(&x, libc::EPERM, "it is plain");
    for tap in &taps {
        assert_eq!(tap.sightings(&text) + tap.sightings(&secret), 0, "plaintext on the wire");
    }
}

/// The file is written seldom, but not too seldom for that.
#[test]
fn the_next_agent_knows_what_the_one_before_was_told_last() {
    let mut cluster = Cluster::new();
    cluster.namespace("shop", Some("require"));
    cluster.namespace("other", None);
    let caller = cluster.run("shop", 2);
    let _idle = Probe::start(&caller.place(), &sheath_tests::script::Job::Idle);
    cluster.wait_for("it is protected", [0, 0, 1]);
    cluster.tell("other", 4, |_| {});
    cluster.wait_for("another is there", [1, 0, 1]);
    // Nobody else tells the next one.
    cluster.controller.freeze();
    cluster.agent.terminate();
    cluster.agent.wait(GENEROUS);
    cluster.agent.launch();
    cluster.wait_for("both are known", [1, 0, 1]);
}

/// An update of all of Sheath replaces the controller as well.
#[test]
fn no_agent_takes_over_that_cannot_prove_for_whom_the_one_before_can() {
    let mut cluster = Cluster::new();
    cluster.namespace("shop", Some("require"));
    let (caller, web) = (cluster.run("shop", 2), cluster.run("shop", 3));
    let echo = Probe::start(&web.place(), &server(any(Family::V4, PORT), &[Step::Echo]));
    let _running = [echo, Probe::start(&caller.place(), &sheath_tests::script::Job::Idle)];
    cluster.wait_for("both are protected", [0, 0, 2]);
    let served = |what: &str| {
        let seen = call(&caller, &web, what);
        assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, what), "{seen:?}");
    };
    served("before");
    cluster.controller.freeze();
    let ready = cluster.agent.count_ready();
    let successor = cluster.agent.successor();
    cluster.agent.wait_for_log("INFO", "waiting for identities");
    for _ in 0..5 {
        served("meanwhile");
    }
    assert_eq!(cluster.agent.count_ready(), ready);
    cluster.controller.thaw();
    let before = cluster.agent.replace(successor, ready);
    served("afterwards");
    cluster.wait_for("both are protected", [0, 0, 2]);
    drop(before);
    served("and then");
}
