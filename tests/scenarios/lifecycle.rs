//! The agent's life: restarts adopt what is pinned, SIGTERM drains, one agent per instance, and
//! cleanup leaves nothing.

use std::fs;
use std::os::unix::net::UnixDatagram;

use sheath_tests::agent::Agent;
use sheath_tests::config::{Config, Peer};
use sheath_tests::hammer::Hammer;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::{
    PORT, Pair, SERVER_NETWORKS, SETTINGS, Setting, any, client, configs, say, server,
};
use sheath_tests::pins::{self, directory};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::Step;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family, World};

#[test]
fn a_restart_adopts_the_pinned_state() {
    let mut pair = Pair::host();
    let tap = pair.world.tap();
    let secret = marker();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let mut hammer = Hammer::start(&pair.client, pair.target(Family::V4), &secret);
    hammer.succeed(5);
    let before = pins::list(pair.agent_a.instance());
    assert!(!before.is_empty());
    let denied = pair.agent_a.status().counter("connect_protected");

    pair.agent_a.terminate();
    let status = pair.agent_a.wait(GENEROUS);
    assert!(status.success(), "{status}");
    assert_eq!(pins::list(pair.agent_a.instance()), before, "the pins outlive the agent");
    hammer.fail(5, libc::ECONNREFUSED);

    pair.agent_a.launch();
    hammer.succeed(5);
    assert_eq!(pins::list(pair.agent_a.instance()), before, "adopted, not doubled");
    let now = pair.agent_a.status().counter("connect_protected");
    assert!(now > denied, "the counters went on from {denied}, not from zero: {now}");
    assert_ciphertext(&tap, PORT, &secret);
}

/// An agent whose maps have another shape has no use for what an earlier one has pinned: it takes its place, and removes
/// it only then. One that cannot start leaves it, for it is all that protects.
#[test]
fn pins_of_an_agent_with_other_maps_go_when_the_next_one_is_in_force_and_not_before() {
    let mut pair = Pair::host();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    pair.assert_served();
    pair.agent_a.kill();
    let instance = directory(pair.agent_a.instance());
    let current = fs::read_dir(&instance).expect("the pins").next().expect("a version");
    let earlier = instance.join("v0");
    fs::rename(current.expect("a version").path(), &earlier).expect("moving the pins");
    let pinned = pins::list(pair.agent_a.instance()).len();

    let key = pair.agent_a.config().ca_dir().join("ca.key");
    let hidden = key.with_extension("hidden");
    fs::rename(&key, &hidden).expect("hiding the key");
    let output = pair.agent_a.run_command().output().expect("running sheath");
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(pins::list(pair.agent_a.instance()).len(), pinned);
    let seen = pair.connect(pair.target(Family::V4), &say("hello"));
    assert_eq!(seen.error, Some(libc::ECONNREFUSED), "still refused: {seen:?}");

    fs::rename(&hidden, &key).expect("giving the key back");
    pair.agent_a.launch();
    assert!(!earlier.exists(), "{:?}", pins::list(pair.agent_a.instance()));
    pair.assert_served();
}

#[test]
fn sigterm_drains() {
    let mut pair = Pair::new(Setting::Pods);
    let _echo = pair.serve(Family::V6, &[Step::Echo]);
    let target = pair.target(Family::V6);
    let mut steps = vec![Step::Send("before".into()), Step::Receive(6), Step::Pause];
    steps.extend(say("during"));
    let mut flow = Probe::start(&pair.client, &client(target, &steps));
    flow.wait_paused();
    pair.agent_a.terminate();
    wait::wait_until("new flows to be refused", GENEROUS, || {
        pair.connect(target, &say("new")).error == Some(libc::ECONNREFUSED)
    });
    assert!(pair.agent_a.is_running(), "there is still a flow");
    flow.go();
    let seen = flow.connection();
    assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, "during"), "{seen:?}");
    let status = pair.agent_a.wait(GENEROUS);
    assert!(status.success(), "{status}");
}

/// As sd_notify(3) and sd_watchdog_enabled(3) have it.
#[test]
fn a_service_manager_is_told_that_the_agent_is_ready_alive_and_stopping() {
    let world = World::new();
    let path = world.dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("the manager's socket");
    manager.set_read_timeout(Some(GENEROUS)).expect("a time limit");
    let told = || {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).expect("a message to the manager");
        String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
    };
    let mut config = configs(&world, Setting::Host).0;
    config.environment = vec![("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "200000".into())];
    let mut agent = Agent::start(&world, &world.a, config);
    assert_eq!(told(), "READY=1");
    for _ in 0..3 {
        assert_eq!(told(), "WATCHDOG=1");
    }
    agent.terminate();
    while told() != "STOPPING=1" {}
    let status = agent.wait(GENEROUS);
    assert!(status.success(), "{status}");
}

#[test]
fn a_second_agent_on_the_same_instance_is_refused() {
    let pair = Pair::host();
    let before = pins::list(pair.agent_a.instance());
    let output = pair.agent_a.run_command().output().expect("running sheath");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let line = error.lines().find(|line| line.starts_with("error: "));
    assert!(line.is_some_and(|line| line.contains("already running")), "{error}");
    assert_eq!(pins::list(pair.agent_a.instance()), before);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let seen = pair.connect(pair.target(Family::V4), &say("still here"));
    assert_eq!(seen.last().text, "still here", "{seen:?}");
}

#[test]
fn cleanup_removes_every_pin_and_says_so() {
    let mut pair = Pair::host();
    let refused = pair.agent_a.sheath("cleanup", &[]);
    assert_eq!(refused.status.code(), Some(1), "an agent still runs");
    let pinned = pins::list(pair.agent_a.instance());
    assert!(!pinned.is_empty());

    pair.agent_a.kill();
    let output = pair.agent_a.sheath("cleanup", &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    for pin in &pinned {
        let line = format!("removed {}", pin.display());
        assert!(said.lines().any(|said| said == line), "{line:?} not in\n{said}");
    }
    assert!(!pins::directory(pair.agent_a.instance()).exists());

    // Nothing is captured any more, as the operator wanted.
    let open = pair.world.b.host("open");
    let to = pair.world.b.addresses.at(Family::V4, 9090);
    let _echo = Probe::start(&open, &server(to, &[Step::Echo]));
    wait::wait_until("a connection without Sheath", GENEROUS, || {
        probe::run(&pair.client, &client(to, &say("in the clear"))).last().text == "in the clear"
    });
}

/// After SIGKILL and cleanup of the server's side, its port is the application's again.
#[test]
fn cleanup_gives_steered_ports_back() {
    let mut pair = Pair::host();
    let stranger = pair.world.a.host("stranger");
    pair.agent_b.kill();
    let output = pair.agent_b.sheath("cleanup", &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        wait::wait_until("a connection without Sheath", GENEROUS, || {
            let seen = probe::run(&stranger, &client(pair.target(family), &say("hello")));
            seen.last().text == "hello"
        });
    }
}

#[test]
fn a_start_that_fails_leaves_nothing_half_installed() {
    let world = World::new();
    let mut config = configs(&world, Setting::Host).0;
    // Found only when everything else is read: the authority's key is no key.
    fs::write(config.ca_dir().join("ca.key"), "not a key\n").expect("a broken key");
    config.log.format = "text";
    let agent = Agent::prepare(&world, &world.a, config);
    let output = agent.run_command().output().expect("running sheath");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        error.lines().any(|line| line.starts_with("error: ") && line.contains("ca.key")),
        "{error}"
    );
    assert_eq!(pins::list(agent.instance()), Vec::<std::path::PathBuf>::new());
    assert!(!pins::directory(agent.instance()).exists());
    let workload = world.a.host("client");
    let to = world.b.addresses.at(Family::V4, 9090);
    let _echo = Probe::start(&world.b.host("open"), &server(to, &[Step::Echo]));
    let seen = probe::run(&workload, &client(to, &say("untouched")));
    assert_eq!(seen.last().text, "untouched", "{seen:?}");
}

/// Either policy keeps plaintext away from the destination. What is pinned must not mix them.
#[test]
fn a_restart_with_another_policy_lets_nothing_out() {
    let world = World::new();
    let prefer = |config: &mut Config| {
        config.workloads[0].outbound.as_mut().unwrap().mode = "prefer";
        config.peers = vec![Peer::new(&SERVER_NETWORKS, &["web"])];
    };
    let require = |config: &mut Config| {
        config.workloads[0].outbound.as_mut().unwrap().mode = "require";
        config.peers.clear();
    };
    let mut config = configs(&world, Setting::Host).0;
    prefer(&mut config);
    let mut agent = Agent::start(&world, &world.a, config);
    let open = world.b.host("open");
    let _open =
        FAMILIES.map(|family| Probe::start(&open, &server(any(family, PORT), &[Step::Echo])));
    let place = world.a.host("client");
    let tap = world.tap();
    let secret = marker();
    let mut hammers: Vec<_> = FAMILIES
        .into_iter()
        .cycle()
        .take(8)
        .map(|family| Hammer::start(&place, world.b.addresses.at(family, PORT), &secret))
        .collect();
    agent.wait_enrolled("client", &place);
    for _ in 0..3 {
        for change in [&require as &dyn Fn(&mut Config), &prefer] {
            agent.kill();
            agent.reconfigure(change);
            agent.launch();
            agent.wait_enrolled("client", &place);
        }
    }
    for hammer in &mut hammers {
        let tries = hammer.so_far();
        let served = tries.iter().filter(|attempt| attempt.error.is_none()).count();
        assert_eq!((served, tries.is_empty()), (0, false), "plaintext was answered");
    }
    assert_eq!(tap.sightings(&secret), 0, "plaintext on the wire");
}

/// What no configuration asks for any more is the application's own again.
#[test]
fn inbound_that_is_taken_out_of_the_configuration_is_given_back() {
    let disabled = |config: &mut Config| config.workloads[0].inbound = None;
    let removed = |config: &mut Config| config.workloads.clear();
    for setting in SETTINGS {
        for (name, change) in
            [("disabled", &disabled as &dyn Fn(&mut Config)), ("removed", &removed)]
        {
            let mut pair = Pair::new(setting);
            let stranger = pair.world.a.host("stranger");
            let _echo = pair.serve(Family::V4, &[Step::Echo]);
            let hello = client(pair.target(Family::V4), &say("hello"));
            assert_ne!(probe::run(&stranger, &hello).ended_by(), None, "{setting:?}: strict");
            pair.agent_b.kill();
            pair.agent_b.reconfigure(change);
            pair.agent_b.launch();
            let what = format!("a plain answer, {setting:?}, inbound {name}");
            wait::wait_until(&what, GENEROUS, || {
                probe::run(&stranger, &hello).last().text == "hello"
            });
        }
    }
}

/// The admin socket is the last thing to be made: something that is no socket has its place.
#[test]
fn a_start_that_fails_late_leaves_nothing() {
    let world = World::new();
    let mut config = configs(&world, Setting::Host).0;
    config.log.format = "text";
    let agent = Agent::prepare(&world, &world.a, config);
    let place = agent.run_dir().join(agent.instance()).join("admin.sock/occupied");
    fs::create_dir_all(place).expect("a directory in the admin socket's place");
    let output = agent.run_command().output().expect("running sheath");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.lines().any(|line| line.starts_with("error: ")), "{error}");
    assert_eq!(pins::list(agent.instance()), Vec::<std::path::PathBuf>::new(), "{error}");
    assert!(!pins::directory(agent.instance()).exists());
}
