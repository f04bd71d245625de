//! Promise 5 has one exception, for pods: the kubelet's own connections, to exactly the ports that the pod's specification declares as
//! probes and hooks. Nobody else has it, with or without an agent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sheath_tests::agent::{self, Agent};
use sheath_tests::api_server::{ApiServer, Kind};
use sheath_tests::binaries;
use sheath_tests::cgroup::Cgroup;
use sheath_tests::config::{self, Kubernetes, Workload};
use sheath_tests::kubelet::{self, Depth, Driver, Kubelet, Qos};
use sheath_tests::names;
use sheath_tests::netns::NetNs;
use sheath_tests::pair::{any, client, living, say, server};
use sheath_tests::pins;
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::raw::{self, Between};
use sheath_tests::script::{Connection, Job, Socket, Step};
use sheath_tests::tap::Tap;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family, Pod, World};

/// Ports of an httpGet by name, a tcpSocket, a grpc probe and a hook.
const PROBED: [u16; 4] = [8080, 8081, 8082, 8083];
/// A port that no probe goes to.
const OTHER: u16 = 9090;
const POD: &str = "shop/web-1";

/// Node A with a kubelet in a cgroup of its own, and a pod whose application listens on all of these ports.
struct Scene {
    agent: Agent,
    /// The kubelet's own cgroup; `None` while it does not run.
    service: Option<Arc<Cgroup>>,
    servers: Vec<Probe>,
    _kubelet: Kubelet,
    container: Arc<Cgroup>,
    pod: Pod,
    _api: ApiServer,
    world: World,
}

impl Scene {
    fn new(label: &str) -> Self {
        Self::with(label, |world| world.a.cgroup.child("kubelet.service"), config_of)
    }

    fn with(
        label: &str,
        service: impl FnOnce(&World) -> Arc<Cgroup>,
        setting: impl FnOnce(&Cgroup) -> config::Kubelet,
    ) -> Self {
        let world = World::new();
        let api = ApiServer::start(&world.a.netns);
        let kubelet = Kubelet::start(&world.a.cgroup, Driver::Systemd, Depth::Flat);
        let uid = kubelet::uid();
        let pod = world.a.pod(2);
        let labels = json!({"sheath.dev/protect": label});
        api.put(
            Kind::Namespace,
            json!({"metadata": {"name": "shop", "uid": "shop", "labels": labels}}),
        );
        api.put(Kind::Pod, object(&uid));
        let service = service(&world);
        let mut config = agent::config(&world, &world.a);
        let kubelet_setting = setting(&service);
        config.kubernetes =
            Some(Kubernetes { kubelet: kubelet_setting, ..Kubernetes::new(api.kubeconfig()) });
        config.capture.pods = Some(kubelet.settings());
        let agent = Agent::start(&world, &world.a, config);
        let container = kubelet.make_container(Qos::Burstable, &uid);
        let place = Place::new(&pod.netns, &container);
        let ports = PROBED.into_iter().chain([OTHER]);
        let listen = |port| {
            FAMILIES.map(|family| Probe::start(&place, &server(any(family, port), &[Step::Echo])))
        };
        let servers = ports.flat_map(listen).collect();
        agent.wait_for_status("the pod to be protected", |status| {
            status.workloads.iter().any(|one| one.name == POD && one.state == "protected")
        });
        let service = Some(service);
        Self { agent, service, servers, _kubelet: kubelet, container, pod, _api: api, world }
    }

    /// Where the kubelet runs.
    fn prober(&self) -> Place {
        Place::new(&self.world.a.netns, self.service.as_ref().expect("a kubelet"))
    }

    fn target(&self, family: Family, port: u16) -> SocketAddr {
        self.pod.addresses.at(family, port)
    }

    fn server(&mut self, family: Family, port: u16) -> &mut Probe {
        let mut ports = PROBED.into_iter().chain([OTHER]);
        let at = 2 * ports.position(|one| one == port).expect("a port") + family as usize;
        &mut self.servers[at]
    }

    fn call(&self, from: &Place, family: Family, port: u16) -> Connection {
        probe::run(from, &client(self.target(family, port), &say("are you there?")))
    }

    #[track_caller]
    fn assert_passes(&self, from: &Place, family: Family, port: u16) -> Connection {
        let seen = self.call(from, family, port);
        assert_eq!(
            (seen.ended_by(), &*seen.last().text),
            (None, "are you there?"),
            "{port}: {seen:?}"
        );
        seen
    }

    /// The agent resets it; without an agent the kernel refuses it.
    #[track_caller]
    fn assert_refused(&self, from: &Place, family: Family, port: u16, errno: i32) {
        let seen = self.call(from, family, port);
        // The agent may send an alert before.
        assert_eq!(seen.ended_by(), Some(errno), "{port}: {seen:?}");
        assert_ne!(seen.last().text, "are you there?", "{port}: {seen:?}");
    }

    /// No application has accepted anything that nobody has asked for.
    #[track_caller]
    fn assert_nothing_accepted(&mut self) {
        let accepted: Vec<_> = self.servers.iter_mut().map(Probe::pending).collect();
        assert!(accepted.iter().all(|count| *count == 0), "{accepted:?}");
    }

    fn counter(&self, name: &str) -> u64 {
        self.agent.status().counters[name]
    }

    #[track_caller]
    fn wait_forgotten(&self) {
        wait::wait_until("no probe to be left in the map", GENEROUS, || {
            pins::count(self.agent.instance(), "PROBES") == 0
        });
    }

    /// The kubelet stops, and its cgroup goes.
    fn stop(&mut self) {
        self.service = None;
    }
}

fn config_of(service: &Cgroup) -> config::Kubelet {
    config::Kubelet::Cgroup(service.relative())
}

fn object(uid: &str) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": "web-1", "uid": uid},
        "spec": {"nodeName": "node-a", "serviceAccountName": "web", "containers": [{
            "name": "main",
            "ports": [{"name": "http", "containerPort": PROBED[0]}, {"containerPort": OTHER}],
            "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
            "readinessProbe": {"tcpSocket": {"port": PROBED[1]}},
            "startupProbe": {"grpc": {"port": PROBED[2]}},
            "lifecycle": {"preStop": {"httpGet": {"port": PROBED[3]}}},
        }]},
        "status": {"phase": "Running"},
    })
}

fn strict() -> Scene {
    Scene::new("require")
}

#[test]
fn the_kubelets_connections_reach_declared_ports_in_the_clear_with_their_own_source() {
    let mut scene = strict();
    let tap = Tap::new(&scene.pod.netns, "eth0");
    for family in FAMILIES {
        for port in PROBED {
            let seen = scene.assert_passes(&scene.prober(), family, port);
            let accepted = scene.server(family, port).accepted();
            assert_eq!(Some(accepted), seen.local, "{family:?} {port}");
        }
    }
    assert!(tap.sightings("are you there?") > 0, "not in the clear");
    assert_eq!(scene.counter("probes_passed"), 8);
    assert_eq!((scene.counter("probe_unmatched"), scene.counter("probe_lost")), (0, 0));
    scene.wait_forgotten();
    let status = scene.agent.status();
    let kubelet = status.pods.unwrap().kubelet.expect("a kubelet");
    let service = scene.service.as_ref().unwrap();
    assert_eq!((&*kubelet.problem, kubelet.id), ("", service.id()));
    assert_eq!(kubelet.cgroup, format!("/{}", service.relative()));
}

#[test]
fn other_ports_are_closed_to_the_kubelet_and_the_same_ports_to_everybody_else() {
    let mut scene = strict();
    let service = scene.service.clone().unwrap();
    let below = Place::new(&scene.world.a.netns, &service.child("below"));
    let elsewhere = scene.world.a.pod(3);
    let stranger = scene.world.a.cgroup.child("stranger");
    let callers = [
        ("a process of the host", Place::new(&scene.world.a.netns, &stranger)),
        ("a process below the kubelet's cgroup", below),
        ("a pod of the node", Place::new(&elsewhere.netns, &stranger)),
        ("the kubelet in another network", Place::new(&elsewhere.netns, &service)),
        ("another node", scene.world.b.host("caller")),
    ];
    for alive in [true, false] {
        if !alive {
            scene.agent.kill();
        }
        let errno = if alive { libc::ECONNRESET } else { libc::ECONNREFUSED };
        for family in FAMILIES {
            scene.assert_refused(&scene.prober(), family, OTHER, errno);
            for (who, place) in &callers {
                eprintln!("{who}, {family:?}");
                scene.assert_refused(place, family, PROBED[1], errno);
            }
        }
    }
    scene.assert_nothing_accepted();
    scene.agent.launch();
    // Of the node itself: the first two, in two families, with and without an agent.
    assert_eq!(scene.counter("probe_unmatched"), 8);
    scene.assert_refused(&callers[0].1, Family::V4, PROBED[0], libc::ECONNRESET);
    scene.agent.wait_for_log("WARN", "not by the kubelet's connection");
    assert_eq!(scene.counter("probes_passed"), 0);
}

/// With SYN cookies the pod has no socket for the connection before the last segment of the handshake, which comes to its listener.
#[test]
fn the_end_of_a_handshake_that_has_left_no_socket_is_a_probes_too() {
    let mut scene = strict();
    scene.pod.netns.sysctl("ipv4/tcp_syncookies", "2");
    let stranger = scene.world.a.host("stranger");
    for family in FAMILIES {
        let seen = scene.assert_passes(&scene.prober(), family, PROBED[0]);
        assert_eq!(Some(scene.server(family, PROBED[0]).accepted()), seen.local);
        scene.assert_refused(&stranger, family, PROBED[0], libc::ECONNRESET);
    }
    scene.assert_nothing_accepted();
    // What ends a handshake that no kubelet has begun.
    for family in FAMILIES {
        let source = scene.world.a.addresses.at(family, 23459);
        let target = scene.target(family, PROBED[0]);
        raw::send_ack(&scene.world.b.netns, source, target, Between::Nothing, 7);
    }
    std::thread::sleep(Duration::from_millis(200));
    scene.assert_nothing_accepted();
}

/// Who is on the network of the node does not know the number with which the kubelet's connection begins.
#[test]
fn a_forged_packet_with_the_ends_of_a_live_probe_is_dropped() {
    const SOURCE: u16 = 23456;
    let mut scene = strict();
    // The kubelet's own SYNs do not get there, and it goes on trying.
    scene.world.a.netns.nft(&format!(
        "add table inet probes\nadd chain inet probes out {{ type filter hook output priority 0; }}\n\
         add rule inet probes out tcp dport {} tcp flags syn drop\n",
        PROBED[0]
    ));
    let family = Family::V6;
    let target = scene.target(family, PROBED[0]);
    let source = SocketAddr::new(scene.world.a.addresses.of(family), SOURCE);
    let socket = Socket { bind: Some(source), ..Socket::default() };
    let job = Job::Client { socket, to: target, steps: say("are you there?") };
    let mut pending = Probe::start(&scene.prober(), &job);
    let entry = || pins::some_value(scene.agent.instance(), "PROBES");
    let entry = wait::wait_for("a live probe", GENEROUS, entry);
    let initial = entry[2] as u32;
    let tap = Tap::new(&scene.pod.netns, "eth0");
    let dropped = scene.counter("guard_dropped_inbound");
    let guesses = [0, initial.wrapping_add(1), initial.wrapping_sub(1), !initial];
    for guess in guesses {
        raw::send_syn_with(&scene.world.b.netns, source, target, guess);
    }
    wait::wait_until("forged SYNs to be dropped by the guard", GENEROUS, || {
        scene.counter("guard_dropped_inbound") == dropped + guesses.len() as u64
    });
    assert!(tap.attempts(PROBED[0]).contains(&source), "the forged SYN has not come to the pod");
    scene.agent.wait_for_log("WARN", "somebody has forged it");
    let status = scene.agent.status();
    let mut refused = status.workloads[0].refused.as_ref().expect("refusals").kinds.iter();
    let kind = refused.find(|kind| kind.by == "guard").expect("one of the guard");
    assert_eq!((&*kind.direction, kind.count), ("inbound", guesses.len() as u64), "{kind:?}");
    assert_eq!(kind.source.map(|source| source.ip()), Some(source.ip()), "{kind:?}");
    // To another port of a probe, where there is no such probe, it is the agent's.
    raw::send_syn_with(&scene.world.b.netns, source, scene.target(family, PROBED[1]), initial);
    scene.assert_nothing_accepted();
    assert_eq!(scene.counter("probes_passed"), 0);
    // Otherwise this scenario could not fail: it is the number that counts, and the pod's answer goes to the kubelet alone.
    raw::send_syn_with(&scene.world.b.netns, source, target, initial);
    assert_eq!(pending.connection().ended_by(), None);
    assert_eq!(scene.counter("probes_passed"), 1);
    assert_eq!(scene.server(family, PROBED[0]).accepted(), source);
}

/// IPv4 packets with an address of the host for a source are dropped by the kernel itself.
#[test]
fn a_forged_packet_without_a_probe_comes_to_nobody() {
    let mut scene = strict();
    for family in FAMILIES {
        let source = scene.world.a.addresses.at(family, 23457);
        for port in PROBED {
            raw::send_syn_with(&scene.world.b.netns, source, scene.target(family, port), 7);
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    scene.assert_nothing_accepted();
    assert_eq!(scene.counter("probes_passed"), 0);
}

#[test]
fn a_kubelet_that_is_started_again_is_known_from_the_making_of_its_cgroup() {
    let mut scene = strict();
    let before = scene.service.as_ref().unwrap().id();
    for alive in [true, false, true] {
        match alive {
            true if !scene.agent.is_running() => drop(scene.agent.launch()),
            true => {}
            false => scene.agent.kill(),
        }
        for family in FAMILIES {
            scene.stop();
            scene.service = Some(scene.world.a.cgroup.child("kubelet.service"));
            assert_ne!(scene.prober().cgroup.id(), before);
            scene.assert_passes(&scene.prober(), family, PROBED[0]);
        }
    }
    // A name that only begins like it, or goes on from it, is another.
    for name in ["kubelet.servic", "kubelet.service2"] {
        let other = Place::new(&scene.world.a.netns, &scene.world.a.cgroup.child(name));
        scene.assert_refused(&other, Family::V4, PROBED[0], libc::ECONNRESET);
    }
}

#[test]
fn a_live_probe_survives_the_agent_and_new_ones_need_none() {
    for label in ["require", "prefer"] {
        let mut scene = Scene::new(label);
        let target = scene.target(Family::V4, PROBED[0]);
        let mut live = Probe::start(&scene.prober(), &client(target, &living()));
        live.wait_paused();
        assert_eq!(pins::count(scene.agent.instance(), "PROBES"), 1);
        scene.agent.kill();
        for family in FAMILIES {
            scene.assert_passes(&scene.prober(), family, PROBED[1]);
        }
        scene.agent.launch();
        scene.assert_passes(&scene.prober(), Family::V6, PROBED[2]);
        assert_eq!(pins::count(scene.agent.instance(), "PROBES"), 1);
        live.go();
        assert_eq!((live.connection().ended_by(), label), (None, label));
        scene.wait_forgotten();
    }
}

#[test]
fn a_source_port_that_was_a_probes_is_nobodys_afterwards() {
    let scene = strict();
    let stranger = scene.world.a.host("stranger");
    let source = scene.world.a.addresses.at(Family::V4, 23458);
    let socket = Socket { bind: Some(source), ..Socket::default() };
    // Closed by a reset, the source port is free at once.
    let steps = [Step::Send("hello".to_owned()), Step::Receive(5), Step::Reset];
    let job = Job::Client { socket, to: scene.target(Family::V4, PROBED[0]), steps: steps.into() };
    for round in 0..10 {
        let said =
            |place: &Place| probe::run(place, &job).steps.get(1).map(|step| step.text.clone());
        assert_eq!(said(&scene.prober()).as_deref(), Some("hello"), "round {round}");
        assert_ne!(said(&stranger).as_deref(), Some("hello"), "round {round}");
    }
    scene.wait_forgotten();
    assert_eq!(scene.counter("probes_passed"), 10);
}

#[test]
fn ten_thousand_probes_leave_nothing() {
    const PROBES: usize = 10_000;
    let scene = strict();
    let to = scene.target(Family::V4, PROBED[0]);
    let mut churn = Probe::start(&scene.prober(), &Job::Churn { to, count: PROBES, threads: 8 });
    let tally = churn.tally(Duration::from_secs(120));
    assert_eq!((tally.ok, tally.errors.len()), (PROBES, 0));
    scene.wait_forgotten();
    assert!(scene.counter("probes_passed") >= PROBES as u64);
    assert_eq!(scene.counter("probe_lost"), 0);
    // What is refused leaves nothing either.
    let closed = scene.target(Family::V4, 1);
    let mut churn =
        Probe::start(&scene.prober(), &Job::Churn { to: closed, count: 200, threads: 8 });
    assert_eq!(churn.tally(GENEROUS).ok, 0);
    scene.wait_forgotten();
}

#[test]
fn a_probe_that_there_is_no_room_for_is_refused_and_counted() {
    let mut scene = strict();
    let filling = pins::fill(scene.agent.instance(), "PROBES");
    scene.assert_refused(&scene.prober(), Family::V4, PROBED[0], libc::ECONNRESET);
    assert_eq!(scene.counter("probe_lost"), 1);
    scene.agent.wait_for_log("WARN", "refused for want of room");
    scene.assert_nothing_accepted();
    filling.clear();
    scene.assert_passes(&scene.prober(), Family::V4, PROBED[0]);
}

/// Its cgroup is outside of the one whose workloads are captured, as `system.slice` is of `kubepods.slice`.
#[test]
fn a_kubelet_outside_of_the_captured_cgroup_is_seen() {
    let name = format!("{}-system", names::unique());
    let mut scene = Scene::with("require", |_| Cgroup::top(&name), config_of);
    for family in FAMILIES {
        scene.assert_passes(&scene.prober(), family, PROBED[0]);
        scene.assert_refused(&scene.prober(), family, OTHER, libc::ECONNRESET);
    }
    let outside = Cgroup::top(&format!("{name}-other"));
    let other = Place::new(&scene.world.a.netns, &outside);
    scene.assert_refused(&other, Family::V4, PROBED[0], libc::ECONNRESET);
    scene.agent.kill();
    scene.stop();
    scene.service = Some(Cgroup::top(&name));
    scene.assert_passes(&scene.prober(), Family::V4, PROBED[0]);
    scene.wait_forgotten();
}

#[test]
fn without_a_kubelet_no_probe_passes() {
    let scene = Scene::with(
        "require",
        |world| world.a.cgroup.child("kubelet.service"),
        |_| config::Kubelet::None,
    );
    scene.assert_refused(&scene.prober(), Family::V4, PROBED[0], libc::ECONNRESET);
    assert!(scene.agent.status().pods.unwrap().kubelet.is_none());
}

#[test]
fn a_kubelet_that_is_a_workload_is_told() {
    let mut scene = strict();
    let cgroup = scene.service.as_ref().unwrap().relative();
    let output = scene.agent.reload(|config| {
        config.workloads = vec![Workload::new("node", &cgroup).outbound("require", &[])];
    });
    assert!(output.status.success(), "{output:?}");
    let problem = scene.agent.status().pods.unwrap().kubelet.unwrap().problem;
    assert!(problem.contains("is the workload node's"), "{problem}");
    let seen = scene.call(&scene.prober(), Family::V4, PROBED[0]);
    assert_eq!(seen.ended_by(), Some(libc::EPERM), "{seen:?}");
}

/// A process that idles, and is called like a kubelet.
fn start_kubelet(scene: &Scene, place: &Place) -> sheath_tests::place::Process {
    let program = scene.world.dir.path().join("kubelet");
    if !program.exists() {
        binaries::copy(&binaries::probe(), &program);
    }
    let mut command = place.command(&program);
    command.arg(serde_json::to_string(&Job::Idle).unwrap());
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    place.spawn(&mut command)
}

#[track_caller]
fn wait_followed(scene: &Scene, cgroup: &Cgroup) {
    let shown = format!("/{}", cgroup.relative());
    scene.agent.wait_for_status("the kubelet to be found", |status| {
        let kubelet = status.pods.as_ref().and_then(|pods| pods.kubelet.as_ref()).unwrap();
        (kubelet.cgroup == shown, kubelet.id) == (true, cgroup.id())
    });
}

#[test]
fn a_kubelet_is_found_by_its_process_and_followed_to_another_cgroup() {
    let mut scene = Scene::with(
        "require",
        |world| world.a.cgroup.child("kubelet.service"),
        |_| config::Kubelet::Auto,
    );
    let problem = scene.agent.status().pods.unwrap().kubelet.unwrap().problem;
    assert!(problem.contains("no kubelet runs here"), "{problem}");
    scene.assert_refused(&scene.prober(), Family::V4, PROBED[0], libc::ECONNRESET);
    // Of a pod, in a network of its own, or not root's, it is none.
    let container = scene.container.clone();
    let stranger = scene.world.a.cgroup.child("stranger");
    let _impostors = [
        start_kubelet(&scene, &Place::new(&scene.world.a.netns, &container)),
        start_kubelet(&scene, &Place::new(&Arc::new(NetNs::new()), &stranger)),
    ];
    let kubelet = start_kubelet(&scene, &scene.prober());
    wait_followed(&scene, &scene.prober().cgroup);
    scene.assert_passes(&scene.prober(), Family::V4, PROBED[0]);
    let pid = scene.agent.status().pods.unwrap().kubelet.unwrap().pid;
    assert_eq!(pid, kubelet.pid());
    let check = scene.agent.sheath_check();
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        text.contains("probes of the kubelet in /") && text.contains("kubelet.service"),
        "{text}"
    );
    // Somebody else in the same cgroup may do as the kubelet does, and that is told.
    let idle = Probe::start(&scene.prober(), &Job::Idle);
    let kubelet_status = scene.agent.status().pods.unwrap().kubelet.unwrap();
    assert_eq!(kubelet_status.others.len(), 1, "{kubelet_status:?}");
    let check = scene.agent.sheath_check();
    assert!(String::from_utf8_lossy(&check.stdout).contains("there are also"));
    drop(idle);
    // It moves.
    drop(kubelet);
    let elsewhere =
        Place::new(&scene.world.a.netns, &scene.world.a.cgroup.child("kubelet2.service"));
    let _kubelet = start_kubelet(&scene, &elsewhere);
    wait_followed(&scene, &elsewhere.cgroup);
    scene.assert_passes(&elsewhere, Family::V6, PROBED[0]);
    scene.assert_refused(&scene.prober(), Family::V4, PROBED[0], libc::ECONNRESET);
    // An agent that starts finds it where it is.
    scene.agent.kill();
    scene.agent.launch();
    scene.assert_passes(&elsewhere, Family::V4, PROBED[0]);
    // Of two that are in different places, nobody can say which one it is.
    scene.agent.kill();
    let _second = start_kubelet(&scene, &scene.prober());
    scene.agent.launch();
    let problem = scene.agent.status().pods.unwrap().kubelet.unwrap().problem;
    assert!(problem.contains("several kubelets run here"), "{problem}");
    scene.assert_refused(&elsewhere, Family::V4, PROBED[0], libc::ECONNRESET);
}

/// A kubelet's addresses are whatever the route to the pod says.
#[test]
fn the_source_of_a_probe_is_the_nodes_towards_the_pod() {
    let scene = strict();
    let seen = scene.assert_passes(&scene.prober(), Family::V4, PROBED[0]);
    assert_eq!(seen.local.map(|local| local.ip()), Some(IpAddr::from([10, 255, 0, 1])));
}
