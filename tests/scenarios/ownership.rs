//! Whose a port is, and who gets what comes to it: steering follows the declaration, and what the agent hands on goes to
//! the workload and to nobody else.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sheath_tests::agent::Agent;
use sheath_tests::config::{Config, Peer, Reuse, Sessions, Workload};
use sheath_tests::live::LiveFlow;
use sheath_tests::pair::{PORT, Pair, SETTINGS, Setting, any, client, configs, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::rogue::{End, Face, RogueServer};
use sheath_tests::script::{Connection, FastOpen, Job, ListenerOptions, Socket, Step};
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family, World};

/// What is refused is refused at once.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Both nodes with their agents, and nothing of the server's workload.
struct Scene {
    agent_a: Agent,
    agent_b: Agent,
    client: Place,
    stranger: Place,
    _resident: Probe,
    world: World,
}

impl Scene {
    fn new(change: impl FnOnce(&World, &mut Config, &mut Config)) -> Self {
        let world = World::new();
        let (mut a, mut b) = configs(&world, Setting::Host);
        change(&world, &mut a, &mut b);
        let client = world.a.host("client");
        let resident = Probe::start(&client, &Job::Idle);
        let agent_a = Agent::start(&world, &world.a, a);
        let agent_b = Agent::start(&world, &world.b, b);
        agent_a.wait_enrolled("client", &client);
        let stranger = world.a.host("stranger");
        Self { agent_a, agent_b, client, stranger, _resident: resident, world }
    }

    fn target(&self, family: Family) -> SocketAddr {
        self.world.b.addresses.at(family, PORT)
    }

    fn extra(&self, family: Family) -> SocketAddr {
        self.world.b.extra.at(family, PORT)
    }

    fn call(&self, from: &Place, to: SocketAddr) -> Connection {
        call(from, to)
    }
}

/// A call that must not take long, whatever comes of it.
#[track_caller]
fn call(from: &Place, to: SocketAddr) -> Connection {
    let started = Instant::now();
    let seen = probe::run(from, &client(to, &say("hello")));
    assert!(
        started.elapsed() < wait::patient(AT_ONCE),
        "{to}: {:?} for {seen:?}",
        started.elapsed()
    );
    seen
}

/// Where nobody was a moment ago: that is remembered until the server has been seen alive.
fn wait_served(client: &Place, to: SocketAddr) {
    wait::wait_until("the server that is back", GENEROUS, || {
        call(client, to).last().text == "hello"
    });
}

#[track_caller]
fn assert_served(from: &Place, to: SocketAddr) {
    let seen = call(from, to);
    assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, "hello"), "{to}: {seen:?}");
}

#[track_caller]
fn assert_refused(from: &Place, to: SocketAddr) {
    let seen = call(from, to);
    let refused = [Some(libc::ECONNRESET), Some(libc::ECONNREFUSED)];
    assert!(refused.contains(&seen.ended_by()), "{to}: {seen:?}");
    // A TLS alert may have come.
    assert!(!seen.last().text.contains("hello"), "{to}: {seen:?}");
}

fn inbound(config: &mut Config) -> &mut sheath_tests::config::Inbound {
    config.workloads[0].inbound.as_mut().expect("inbound")
}

/// Where an address and port are declared or known, others may use the port at other addresses.
fn echo_at(place: &Place, at: SocketAddr) -> Probe {
    Probe::start(place, &server(at, &[Step::Echo]))
}

/// As with a service manager that listens for a service that does not run yet.
#[test]
fn a_declared_port_is_closed_to_strangers_before_the_first_process() {
    let mut scene = Scene::new(|_, _, _| {});
    let manager = scene.world.b.host("manager");
    let mut sockets = FAMILIES.map(|family| echo_at(&manager, any(family, PORT)));
    for family in FAMILIES {
        assert_refused(&scene.stranger, scene.target(family));
        // Nobody has said that the socket is the workload's.
        assert_refused(&scene.client, scene.target(family));
    }
    let status = scene.agent_b.wait_for_status("whose socket has the port", |status| {
        status.workload("web").notes.iter().any(|note| note.contains("/manager"))
    });
    assert_eq!(status.workload("web").state, "waiting");
    scene.agent_b.wait_for_log("WARN", "/manager");
    let checked = check(&scene.agent_b);
    assert!(checked.contains("/manager") && checked.contains("inbound.activator"), "{checked}");
    scene.agent_b.wait_for_access("the client's flow", |line| {
        line.reason.contains("inbound.activator") && line.is("inbound", "refused")
    });
    scene.agent_b.kill();
    for family in FAMILIES {
        assert_refused(&scene.stranger, scene.target(family));
    }
    for socket in &mut sockets {
        assert_eq!(socket.pending(), 0, "somebody reached the service manager's socket");
    }
}

#[test]
fn what_a_service_manager_listens_for_is_served_by_mutual_tls() {
    let mut manager = None;
    let scene = Scene::new(|world, _, b| {
        let place = manager.insert(world.b.host("manager"));
        inbound(b).activator = Some(place.cgroup.relative());
    });
    let manager = manager.expect("the service manager's place");
    let mut sockets = FAMILIES.map(|family| echo_at(&manager, any(family, PORT)));
    for (family, socket) in FAMILIES.into_iter().zip(&mut sockets) {
        assert_refused(&scene.stranger, scene.target(family));
        assert_served(&scene.client, scene.target(family));
        socket.accepted();
        assert_eq!(socket.pending(), 0, "a stranger reached it");
    }
    scene.agent_b.wait_for_access("the client's flow", |line| {
        line.is("inbound", "ok") && line.protection == "mtls"
    });
}

/// One of two cgroups of the workload is gone, and somebody holds a socket that was made in it. That socket is guarded
/// still, but it is nobody's: what comes for the other cgroup's processes does not go there.
#[test]
fn a_socket_of_a_cgroup_that_is_gone_gets_nothing_of_the_workloads() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        let elsewhere = pair.world.b.host("elsewhere").cgroup;
        for family in FAMILIES {
            let cgroup = pair.world.b.host(&format!("web-{family:?}")).cgroup;
            let place = Place::new(&pair.server.netns, &cgroup);
            let socket =
                ListenerOptions { moves_to: Some(elsewhere.procs()), ..ListenerOptions::default() };
            let listen = any(family, PORT);
            let job = Job::Server { listen, socket, steps: vec![Step::Echo] };
            let mut holder = Probe::start(&place, &job);
            std::fs::remove_dir(cgroup.path()).expect("removing one of the workload's cgroups");
            assert_refused(&pair.client, pair.target(family));
            assert_eq!(holder.pending(), 0, "{setting:?} {family:?}");
        }
    }
}

/// It lives, but does not listen, and somebody else does.
#[test]
fn whoever_has_the_port_of_a_workload_is_not_the_workload() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        let outsider = Place::new(&pair.server.netns, &pair.world.b.host("outsider").cgroup);
        for family in FAMILIES {
            let mut squatter = echo_at(&outsider, any(family, PORT));
            let stranger = pair.world.a.host(&format!("stranger-{family:?}"));
            assert_refused(&stranger, pair.target(family));
            assert_refused(&pair.client, pair.target(family));
            assert_eq!(squatter.pending(), 0, "{setting:?} {family:?}");
            if setting == Setting::Host {
                pair.agent_b.wait_for_status("what is in the way", |status| {
                    let web = status.workload("web");
                    web.state == "degraded" && web.reason.contains("/outsider")
                });
            }
            drop(squatter);
            let mut app = pair.serve(family, &[Step::Echo]);
            wait_served(&pair.client, pair.target(family));
            app.accepted();
            assert_eq!(app.pending(), 0);
        }
        let refused = pair.agent_b.status().counter("local_leg_refused");
        assert!(refused >= 2, "{setting:?}: {refused}");
    }
}

/// Outside the cgroup that the programs are attached to, nothing tells whose a socket is.
#[test]
fn nor_is_whoever_no_program_sees() {
    let pair = Pair::new(Setting::Pods);
    for family in FAMILIES {
        let (netns, to) = (&pair.server.netns, pair.target(family));
        let outsider = RogueServer::start(netns, to, Face::Plain, "hello", End::CloseNotify);
        assert_refused(&pair.client, to);
        for session in outsider.sessions(1) {
            assert_eq!(session.received, b"", "{family:?}: {session:?}");
        }
        pair.agent_b.wait_for_access("the refusal", |line| line.reason.contains("capture.cgroup"));
    }
}

/// What the kernel listens with beneath a multipath socket is the workload's too, and what comes by SYN cookie as well.
#[test]
fn every_kind_of_listening_socket_of_the_workloads_is_served() {
    let pair = Pair::host();
    let stranger = pair.world.a.host("stranger");
    pair.server.netns.sysctl("ipv4/tcp_syncookies", "2");
    for family in FAMILIES {
        for socket in [
            ListenerOptions { mptcp: true, ..ListenerOptions::default() },
            ListenerOptions { dual_stack: family == Family::V6, ..ListenerOptions::default() },
        ] {
            let described = format!("{family:?} {socket:?}");
            let listen = any(family, PORT);
            let job = Job::Server { listen, socket, steps: vec![Step::Echo] };
            let mut app = Probe::start(&pair.server, &job);
            assert_served(&pair.client, pair.target(family));
            assert_refused(&stranger, pair.target(family));
            app.accepted();
            assert_eq!(app.pending(), 0, "{described}");
        }
    }
}

/// The same in a port's permissive mode, where plaintext goes by way of the agent too.
#[test]
fn nor_is_it_where_plaintext_passes() {
    let pair = Pair::with(Setting::Host, |_, b| inbound(b).mode = "permissive");
    let outsider = pair.world.b.host("outsider");
    let stranger = pair.world.a.host("stranger");
    let mut squatter = echo_at(&outsider, any(Family::V4, PORT));
    assert_refused(&stranger, pair.target(Family::V4));
    assert_eq!(squatter.pending(), 0);
    drop(squatter);
    let _app = pair.serve(Family::V4, &[Step::Echo]);
    assert_served(&stranger, pair.target(Family::V4));
}

#[test]
fn sessions_end_with_their_workload() {
    let reuse = || Sessions::reused(Reuse::default());
    let scene = Scene::new(|_, a, b| (a.sessions, b.sessions) = (reuse(), reuse()));
    let to = scene.target(Family::V4);
    let web = scene.world.b.host("web-1");
    let echo = echo_at(&web, any(Family::V4, PORT));
    scene.agent_b.wait_enrolled("web", &web);
    assert_served(&scene.client, to);
    scene.agent_a.wait_for_status("the session that is kept", |status| status.idle_sessions == 1);

    drop((echo, web));
    let mut squatter = echo_at(&scene.world.b.host("outsider"), any(Family::V4, PORT));
    scene.agent_a.wait_for_status("the end of the session", |status| status.idle_sessions == 0);
    assert_refused(&scene.client, to);
    assert_refused(&scene.stranger, to);
    assert_eq!(squatter.pending(), 0);
    drop(squatter);

    let web = scene.world.b.host("web-2");
    let _echo = echo_at(&web, any(Family::V4, PORT));
    scene.agent_b.wait_enrolled("web", &web);
    wait_served(&scene.client, to);
}

/// Its process has gone on to another cgroup, and taken the connection along.
#[test]
fn flows_in_progress_end_with_their_workload() {
    let scene = Scene::new(|_, _, _| {});
    let (web, elsewhere) = (scene.world.b.host("web-1"), scene.world.b.host("elsewhere"));
    let echo = echo_at(&web, any(Family::V4, PORT));
    scene.agent_b.wait_enrolled("web", &web);
    let mut flow = LiveFlow::start(&scene.client, scene.target(Family::V4));
    flow.assert_alive();
    std::fs::write(elsewhere.cgroup.procs(), echo.pid().to_string()).expect("moving the server");
    std::fs::remove_dir(web.cgroup.path()).expect("removing the workload's cgroup");
    flow.wait_reset();
    scene.agent_b.wait_for_access("the end of the flow", |line| line.is("inbound", "revoked"));
}

/// Not declared, but seen: the workload listens at one of the host's addresses alone.
#[test]
fn a_service_at_another_address_keeps_the_port_there() {
    let scene = Scene::new(|_, _, _| {});
    let (web, other) = (scene.world.b.host("web"), scene.world.b.host("other"));
    let mut own = FAMILIES.map(|family| echo_at(&web, scene.target(family)));
    let mut others = FAMILIES.map(|family| echo_at(&other, scene.extra(family)));
    scene.agent_b.wait_enrolled("web", &web);
    for family in FAMILIES {
        wait::wait_until("the other service to be left alone", GENEROUS, || {
            scene.call(&scene.stranger, scene.extra(family)).ended_by().is_none()
        });
        assert_refused(&scene.stranger, scene.target(family));
        assert_served(&scene.client, scene.target(family));
    }
    for service in &mut own {
        service.accepted();
        assert_eq!(service.pending(), 0, "a stranger reached the workload");
    }
    // It keeps its own while it does not listen.
    own.into_iter().for_each(Probe::kill);
    let _resident = Probe::start(&web, &Job::Idle);
    for family in FAMILIES {
        let mut squatter = echo_at(&other, scene.target(family));
        assert_refused(&scene.stranger, scene.target(family));
        assert_served(&scene.stranger, scene.extra(family));
        assert_eq!(squatter.pending(), 0);
    }
    for service in &mut others {
        service.accepted();
    }
}

#[test]
fn workloads_with_one_port_at_two_addresses_are_two() {
    for declared in [false, true] {
        let mut scene = Scene::new(|world, a, b| {
            a.peers.push(Peer::new(&["10.0.92.9/32", "fd00::92:9/128"], &["web", "other"]));
            let pattern = format!("{}/other*", world.b.cgroup.relative());
            let other =
                Workload::new("other", &pattern).inbound("strict", Some(&[PORT]), &["admin"]);
            b.workloads.push(other);
            if declared {
                for (workload, at) in b.workloads.iter_mut().zip([world.b.addresses, world.b.extra])
                {
                    let addresses = FAMILIES.map(|family| at.of(family)).to_vec();
                    workload.inbound.as_mut().unwrap().addresses = addresses;
                }
            }
        });
        let (web, other) = (scene.world.b.host("web"), scene.world.b.host("other"));
        let _own = FAMILIES.map(|family| echo_at(&web, scene.target(family)));
        let mut others = FAMILIES.map(|family| echo_at(&other, scene.extra(family)));
        scene.agent_b.wait_enrolled("web", &web);
        scene.agent_b.wait_enrolled("other", &other);
        for workload in ["web", "other"] {
            scene.agent_b.wait_for_status("both to be protected", |status| {
                status.workload(workload).state == "protected"
            });
        }
        for family in FAMILIES {
            assert_served(&scene.client, scene.target(family));
            assert_refused(&scene.client, scene.extra(family));
            assert_refused(&scene.stranger, scene.extra(family));
        }
        for service in &mut others {
            assert_eq!(service.pending(), 0, "its own list of callers was not asked");
        }
        let reloaded = scene.agent_b.reload(|config| {
            let id = sheath_tests::config::spiffe_id("client");
            config.workloads[1].inbound.as_mut().unwrap().allow = vec![id];
        });
        assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
        for family in FAMILIES {
            assert_served(&scene.client, scene.extra(family));
        }
    }
}

/// Against its own declaration: nobody is served there, and nobody waits.
#[test]
fn a_workload_serves_nobody_at_an_address_that_it_does_not_declare() {
    let scene = Scene::new(|world, _, b| {
        inbound(b).addresses = FAMILIES.map(|family| world.b.addresses.of(family)).to_vec();
    });
    let web = scene.world.b.host("web");
    let mut apps = FAMILIES.map(|family| echo_at(&web, any(family, PORT)));
    scene.agent_b.wait_enrolled("web", &web);
    for family in FAMILIES {
        wait::wait_until("a reset", GENEROUS, || {
            let socket = Socket { connect_limit: Some(500), ..Socket::default() };
            let job = Job::Client { socket, to: scene.extra(family), steps: say("hello") };
            let seen = probe::run(&scene.stranger, &job);
            assert_ne!(seen.ended_by(), None, "{seen:?}");
            seen.ended_by() == Some(libc::ECONNRESET)
        });
        assert_served(&scene.client, scene.target(family));
    }
    for app in &mut apps {
        app.accepted();
        assert_eq!(app.pending(), 0);
    }
}

/// A caller on the same host has not come by the network, whichever of the host's addresses it has.
#[test]
fn a_caller_with_another_address_of_the_host_is_local() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        let neighbour = Place::new(&pair.server.netns, &pair.world.b.host("neighbour").cgroup);
        let others: [IpAddr; 2] = ["10.7.7.7".parse().unwrap(), "fd07::7".parse().unwrap()];
        pair.server.netns.ip("addr add 10.7.7.7/32 dev lo\naddr add fd07::7/128 dev lo\n");
        for (family, other) in FAMILIES.into_iter().zip(others) {
            let _app = pair.serve(family, &[Step::Echo]);
            wait::wait_until("the caller to be served", GENEROUS, || {
                let socket = Socket { bind: Some((other, 0).into()), ..Socket::default() };
                let job =
                    Job::Client { socket, to: pair.target(family), steps: say("from next door") };
                probe::run(&neighbour, &job).last().text == "from next door"
            });
            // Those who come by the network have not become local by that.
            assert_refused(&pair.world.a.host(&format!("far-{family:?}")), pair.target(family));
        }
    }
}

/// Data in a SYN needs no answer: it must not come in with an address of the host's own as its source, not even where the
/// kernel lets that pass.
#[test]
fn a_forged_local_source_reaches_nobody() {
    let mut manager = None;
    let scene = Scene::new(|world, _, b| {
        let place = manager.insert(world.b.host("manager"));
        inbound(b).activator = Some(place.cgroup.relative());
    });
    let netns = &scene.world.b.netns;
    for interface in ["all", "wire"] {
        netns.sysctl(&format!("ipv4/conf/{interface}/accept_local"), "1");
        netns.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "0");
    }
    let forged = scene.world.b.extra;
    scene
        .world
        .a
        .netns
        .ip(&format!("addr add {}/32 dev lo\naddr add {}/128 dev lo\n", forged.v4, forged.v6));
    let web = scene.world.b.host("web");
    for place in [web, manager.expect("the service manager's place")] {
        for family in FAMILIES {
            let mut app =
                Probe::start(&place, &server(scene.target(family), &[Step::ReceiveToEnd]));
            scene.agent_b.wait_for_status("the listener to be known", |status| {
                status.workload("web").reason.is_empty()
            });
            let dropped = || scene.agent_b.status().counter("guard_dropped_inbound");
            let before = dropped();
            let socket = Socket {
                bind: Some((forged.of(family), 0).into()),
                fast_open: FastOpen::Send("forged".into()),
                connect_limit: Some(100),
                ..Socket::default()
            };
            let steps = vec![Step::EndSending, Step::ReceiveToEnd];
            let job = Job::Client { socket, to: scene.target(family), steps };
            let _forger = Probe::start(&scene.stranger, &job);
            wait::wait_until("the guard to drop it", GENEROUS, || dropped() > before);
            assert_eq!(app.pending(), 0, "{family:?}");
        }
    }
}

/// In the agent's own namespace the ports of a workload must have names.
#[test]
fn a_workload_in_the_agents_namespace_without_named_ports_is_refused_at_once() {
    let scene = Scene::new(|_, _, b| inbound(b).ports = None);
    let web = scene.world.b.host("web");
    let mut app = echo_at(&web, any(Family::V4, PORT));
    scene.agent_b.wait_enrolled("web", &web);
    let status = scene.agent_b.wait_for_status("the refusal", |status| {
        let web = status.workload("web");
        web.state == "degraded" && web.reason.contains("ports: [8080]")
    });
    assert!(status.workload("web").reason.contains("inbound"), "{status:?}");
    assert_refused(&scene.stranger, scene.target(Family::V4));
    assert_refused(&scene.client, scene.target(Family::V4));
    assert_eq!(app.pending(), 0);
    let text = scene.agent_b.sheath("status", &[]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("strict refused"), "{text}");
    let checked = check(&scene.agent_b);
    assert!(checked.contains("ports: [8080]") && checked.contains("error"), "{checked}");
}

/// As behind a published port: what arrives at another port than the declared one is not protected.
#[test]
fn a_service_beside_the_declared_port_is_told() {
    for setting in SETTINGS {
        let pair = Pair::with(setting, |_, b| inbound(b).ports = Some(vec![PORT]));
        let beside = any(Family::V4, 80);
        let _app = Probe::start(&pair.server, &server(beside, &[Step::Echo]));
        let told = "listens on 0.0.0.0:80, which inbound.ports does not name";
        pair.agent_b.wait_for_status("what listens where", |status| {
            let web = status.workload("web");
            web.state == "degraded"
                && web.reason.contains("nothing of it listens on 8080")
                && web.reason.contains(told)
        });
        let checked = check(&pair.agent_b);
        assert!(checked.contains(told), "{setting:?}: {checked}");
        // Once it does listen where it says, the other port is only mentioned.
        let _declared = pair.serve(Family::V4, &[Step::Echo]);
        pair.agent_b.wait_for_status("the port to be served", |status| {
            let web = status.workload("web");
            web.state == "protected" && web.notes.iter().any(|note| note.contains("0.0.0.0:80"))
        });
    }
}

/// What `sheath check` says, from where the agent runs.
fn check(agent: &Agent) -> String {
    let place = Place::new(agent.netns(), agent.cgroup());
    let mut command = place.command(&agent.config().binary);
    command.args(["check", "--config"]).arg(agent.file());
    let output = place.output(&mut command);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_family_that_comes_later_is_served() {
    const OFF_AND_ON: &str = "ipv6/conf/all/disable_ipv6";
    let scene = Scene::new(|_, _, b| inbound(b).ports = None);
    let (mine, theirs) = (scene.world.a.pod(2), scene.world.b.pod(2));
    for pod in [&mine, &theirs] {
        pod.netns.sysctl(OFF_AND_ON, "1");
    }
    let client = Place::new(&mine.netns, &scene.world.a.host("client-pod").cgroup);
    let web = Place::new(&theirs.netns, &scene.world.b.host("web-pod").cgroup);
    let _residents = [&client, &web].map(|place| Probe::start(place, &Job::Idle));
    scene.agent_a.wait_enrolled("client", &client);
    scene.agent_b.wait_enrolled("web", &web);
    for pod in [&mine, &theirs] {
        pod.netns.sysctl(OFF_AND_ON, "0");
        pod.netns.ip(&format!(
            "addr add {}/128 dev eth0\nroute add default via fe80::1 dev eth0\n",
            pod.addresses.v6
        ));
    }
    let mut app = echo_at(&web, any(Family::V6, PORT));
    let to = theirs.addresses.at(Family::V6, PORT);
    wait::wait_until("the new family to be served", GENEROUS, || {
        call(&client, to).last().text == "hello"
    });
    app.accepted();
    assert_refused(&scene.stranger, to);
    assert_eq!(app.pending(), 0);
}

/// What `/proc` shows of such a process says nothing. The agent has not seen it before.
#[test]
fn a_process_whose_main_thread_has_ended_is_served() {
    let mut there = None;
    let scene = Scene::new(|world, _, b| {
        inbound(b).ports = None;
        let pod = world.b.pod(3);
        let web = Place::new(&pod.netns, &world.b.host("web-headless").cgroup);
        let socket = ListenerOptions { headless: true, ..ListenerOptions::default() };
        let job = Job::Server { listen: any(Family::V4, PORT), socket, steps: vec![Step::Echo] };
        there = Some((Probe::start(&web, &job), web, pod));
    });
    let (_app, web, pod) = there.expect("the server");
    scene.agent_b.wait_enrolled("web", &web);
    assert_served(&scene.client, pod.addresses.at(Family::V4, PORT));
}

/// The agent lets go of a namespace after ten seconds in which it has seen nobody there.
const LONGER_THAN_THE_AGENT_LINGERS: Duration = Duration::from_secs(13);

/// Longer than those are there who pass through a namespace on their way to their own.
const STAYED: Duration = Duration::from_millis(400);

/// As inetd does, which starts the workload for each connection; its cgroup may go each time.
#[test]
fn a_namespace_is_served_while_somebody_listens_on_a_declared_port_there() {
    for ports in [Some(vec![PORT]), None] {
        let scene = Scene::new(|_, _, b| inbound(b).ports.clone_from(&ports));
        let pods = [5, 6].map(|index| scene.world.b.pod(index));
        let [stays, goes] = ["web-stays", "web-goes"].map(|name| scene.world.b.host(name).cgroup);
        let manager = scene.world.b.host("manager").cgroup;
        let mut sockets = Vec::new();
        for pod in &pods {
            let place = Place::new(&pod.netns, &manager);
            sockets.extend(FAMILIES.map(|family| echo_at(&place, any(family, PORT))));
        }
        for (pod, cgroup) in pods.iter().zip([&stays, &goes]) {
            let web = Place::new(&pod.netns, cgroup);
            let _first = Probe::start(&web, &Job::Idle);
            scene.agent_b.wait_enrolled("web", &web);
            wait::wait_until("the namespace to be served", GENEROUS, || {
                call(&scene.stranger, pod.addresses.at(Family::V4, PORT)).ended_by().is_some()
            });
            // Who is there for less may only be passing through. The agent looks whenever it is asked.
            let seen = Instant::now();
            wait::wait_until("it to have stayed", GENEROUS, || seen.elapsed() > STAYED);
            scene.agent_b.wait_enrolled("web", &web);
        }
        drop(goes);
        sockets.iter_mut().for_each(|socket| drop(socket.events_so_far()));
        let started = Instant::now();
        wait::wait_until("the processes to be long gone", GENEROUS, || {
            started.elapsed() > LONGER_THAN_THE_AGENT_LINGERS
        });
        for pod in &pods {
            for family in FAMILIES {
                assert_refused(&scene.stranger, pod.addresses.at(family, PORT));
                assert_refused(&scene.client, pod.addresses.at(family, PORT));
            }
        }
        for socket in &mut sockets {
            assert_eq!(socket.pending(), 0, "{ports:?}: somebody reached the manager's socket");
        }
        // Nobody is awaited any more.
        drop(sockets);
        scene.agent_b.wait_for_status("its ports there to be other people's", |status| {
            let namespaces = &status.workload("web").namespaces;
            pods.iter().all(|pod| namespaces.iter().all(|n| n.inode != pod.netns.inode()))
        });
        drop(stays);
    }
}

/// Nobody of the workload's is seen in the namespace any more, but its socket is there.
#[test]
fn a_namespace_is_served_while_it_holds_a_socket_of_the_workloads() {
    let mut scene = Scene::new(|_, _, b| inbound(b).ports = Some(vec![PORT]));
    let pod = scene.world.b.pod(4);
    let host = scene.world.b.host("web-host");
    let web = Place::new(&pod.netns, &scene.world.b.host("web-pod").cgroup);
    let mut apps = Vec::new();
    for place in [&host, &web] {
        let first = Probe::start(place, &Job::Idle);
        scene.agent_b.wait_enrolled("web", place);
        let socket = ListenerOptions { leaves: true, ..ListenerOptions::default() };
        for family in FAMILIES {
            let socket = socket.clone();
            let listen = any(family, PORT);
            let steps = vec![Step::Echo];
            apps.push(Probe::start(place, &Job::Server { listen, socket, steps }));
        }
        drop(first);
    }
    let started = Instant::now();
    wait::wait_until("the processes to be long gone", GENEROUS, || {
        started.elapsed() > LONGER_THAN_THE_AGENT_LINGERS
    });
    // The next agent has seen nobody there at all.
    for is_next in [false, true] {
        if is_next {
            scene.agent_b.kill();
            scene.agent_b.launch();
        }
        let status = scene.agent_b.status();
        for place in [&host, &web] {
            let namespaces = &status.workload("web").namespaces;
            let is_served = |inode| namespaces.iter().any(|n| n.inode == inode && n.ready);
            let is_host = place.netns.inode() == scene.world.b.netns.inode();
            assert!(is_served(place.netns.inode()) || (is_next && is_host), "{status:?}");
        }
        for family in FAMILIES {
            for to in [scene.target(family), pod.addresses.at(family, PORT)] {
                let seen = call(&scene.stranger, to);
                assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{to}: {seen:?}");
                assert_served(&scene.client, to);
            }
        }
        for app in &mut apps {
            app.accepted();
            assert_eq!(app.pending(), 0);
        }
    }
}

/// A service manager listens in the host's namespace, for a workload that has one of its own.
#[test]
fn a_port_is_the_workloads_where_it_was_handed_the_socket() {
    let scene = Scene::new(|_, _, _| {});
    let (manager, web) = (scene.world.b.host("manager"), scene.world.b.host("web"));
    let socket = ListenerOptions {
        moves_to: Some(web.cgroup.procs()),
        leaves: true,
        ..ListenerOptions::default()
    };
    let mut apps = FAMILIES.map(|family| {
        let (listen, socket) = (any(family, PORT), socket.clone());
        Probe::start(&manager, &Job::Server { listen, socket, steps: vec![Step::Echo] })
    });
    let host = manager.netns.inode();
    scene.agent_b.wait_for_status("the workload's own namespaces", |status| {
        let namespaces = &status.workload("web").namespaces;
        namespaces.iter().filter(|namespace| namespace.inode != host).count() == apps.len()
    });
    for (family, app) in FAMILIES.into_iter().zip(&mut apps) {
        assert_refused(&scene.stranger, scene.target(family));
        assert_eq!(app.pending(), 0, "{family:?}");
    }
}

/// Nor does it help that the workload listens at another address itself.
#[test]
fn a_socket_that_the_workload_was_handed_is_nobody_elses() {
    let scene = Scene::new(|_, _, _| {});
    let (manager, web) = (scene.world.b.host("manager"), scene.world.b.host("web"));
    let socket =
        ListenerOptions { moves_to: Some(web.cgroup.procs()), ..ListenerOptions::default() };
    let mut handed = FAMILIES.map(|family| {
        let (listen, socket) = (scene.extra(family), socket.clone());
        Probe::start(&manager, &Job::Server { listen, socket, steps: vec![Step::Echo] })
    });
    let _own = FAMILIES.map(|family| echo_at(&web, scene.target(family)));
    scene.agent_b.wait_enrolled("web", &web);
    for family in FAMILIES {
        assert_served(&scene.client, scene.target(family));
    }
    // The agent has looked since they have listened.
    scene.agent_b.status();
    for (family, app) in FAMILIES.into_iter().zip(&mut handed) {
        assert_refused(&scene.stranger, scene.extra(family));
        assert_eq!(app.pending(), 0, "{family:?}");
    }
}
