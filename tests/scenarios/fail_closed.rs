//! Promise 1 when the agent is killed with SIGKILL: nothing leaks, protected connects fail at once
//! with an errno, the rest goes on, and a restarted agent serves again.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sheath_tests::hammer::Hammer;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, Setting, any, client, say, server};
use sheath_tests::pins;
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Connection, Job, Socket, Step};
use sheath_tests::status::Status;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family, World};

const OPEN_PORT: u16 = 9090;

/// "At once", on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(5);

fn is_at_once(milliseconds: u64) -> bool {
    Duration::from_millis(milliseconds) < wait::patient(AT_ONCE)
}

#[test]
fn the_clients_agent_is_killed_under_traffic_between_hosts() {
    clients_agent_is_killed(Setting::Host, Family::V4);
}

#[test]
fn the_clients_agent_is_killed_under_traffic_between_pods() {
    clients_agent_is_killed(Setting::Pods, Family::V6);
}

fn clients_agent_is_killed(setting: Setting, family: Family) {
    let mut pair = Pair::with(setting, |a, _| {
        let bypass = &mut a.workloads[0].outbound.as_mut().unwrap().bypass;
        *bypass = ["10.0.92.0/24", "fd00::92:0/112"].map(str::to_owned).to_vec();
    });
    let tap = pair.world.tap();
    let (secret, public) = (marker(), marker());
    // Large enough that the kill finds transfers half done.
    let secrets = secret.repeat(1000);
    let mut long_steps = say(&secret);
    long_steps.insert(0, Step::Pause);
    let _echo = pair.serve(family, &[Step::Echo]);
    let open = server(any(family, OPEN_PORT), &[Step::Echo]);
    let _open = Probe::start(&pair.world.b.host("open"), &open);

    let mut protected = Hammer::start(&pair.client, pair.target(family), &secrets);
    let bypassed = pair.world.b.extra.at(family, OPEN_PORT);
    let mut unprotected = Hammer::start(&pair.client, bypassed, &public);
    protected.succeed(10);
    unprotected.succeed(10);
    let mut long = Probe::start(&pair.client, &client(pair.target(family), &long_steps));
    long.wait_paused();

    pair.agent_a.kill();

    for failed in protected.fail(30, libc::ECONNREFUSED) {
        assert!(failed.at_connect, "{failed:?}");
        assert!(is_at_once(failed.milliseconds), "{failed:?}");
    }
    long.go();
    assert_eq!(long.connection().ended_by(), Some(libc::ECONNRESET));
    let tries = unprotected.succeed(20);
    assert!(tries.iter().all(|attempt| attempt.error.is_none()), "{tries:?}");

    let restarted = Instant::now();
    pair.agent_a.launch();
    protected.succeed(1);
    let took = restarted.elapsed();
    println!("a new flow was served {} ms after the restart", took.as_millis());
    // How quick that is says nothing on an emulated processor, which the client's attempts keep busy.
    assert!(took < Duration::from_secs(3) || wait::is_slow(), "{took:?}");
    protected.succeed(10);

    drop(protected);
    // The killed agent has left entries of its flows behind in the kernel.
    pair.agent_a.wait_for_status("nothing left of any flow", Status::is_idle);

    assert!(tap.sightings(&public) > 0, "the tap must see what is not protected");
    assert_ciphertext(&tap, PORT, &secret);
}

#[test]
fn the_servers_agent_is_killed_under_traffic() {
    for setting in [Setting::Host, Setting::Pods] {
        let family = Family::V4;
        let mut pair = Pair::new(setting);
        let tap = pair.world.tap();
        let secret = marker();
        let mut echo = pair.serve(family, &[Step::Echo]);
        let mut hammer = Hammer::start(&pair.client, pair.target(family), &secret.repeat(1000));
        hammer.succeed(10);

        pair.agent_b.kill();

        // Once the client's agent has seen it, connect() itself says so.
        for failed in hammer.fail(20, libc::ECONNREFUSED) {
            assert!(is_at_once(failed.milliseconds), "{failed:?}");
        }
        while echo.pending() > 0 {
            echo.accepted();
        }
        // Somebody without an agent finds a closed door too, not the application behind it.
        let stranger = pair.world.a.host("stranger");
        for family in FAMILIES {
            let seen = probe::run(&stranger, &client(pair.target(family), &say("let me in")));
            assert_eq!(seen.error, Some(libc::ECONNREFUSED), "{setting:?}: {seen:?}");
            assert!(is_at_once(seen.connect_ms), "{seen:?}");
        }
        assert_eq!(echo.pending(), 0);

        pair.agent_b.launch();
        hammer.succeed(10);
        assert_ciphertext(&tap, PORT, &secret);
    }
}

#[test]
fn both_agents_are_killed() {
    let mut pair = Pair::host();
    let tap = pair.world.tap();
    let secret = marker();
    let _echo = pair.serve(Family::V6, &[Step::Echo]);
    let mut hammer = Hammer::start(&pair.client, pair.target(Family::V6), &secret);
    hammer.succeed(5);
    pair.agent_a.kill();
    pair.agent_b.kill();
    hammer.fail(20, libc::ECONNREFUSED);
    pair.agent_b.launch();
    pair.agent_a.launch();
    hammer.succeed(5);
    assert_ciphertext(&tap, PORT, &secret);
}

/// Two programs guard the way out, independent of each other: without the redirect, the egress
/// guard still drops what did not come through the agent, and counts it.
#[test]
fn the_egress_guard_drops_and_counts() {
    let mut pair = Pair::host();
    let open = server(any(Family::V4, OPEN_PORT), &[Step::Echo]);
    let mut open = Probe::start(&pair.world.b.host("open"), &open);
    let target = pair.world.b.addresses.at(Family::V4, OPEN_PORT);
    let tap = pair.world.tap();
    let secret = marker();
    pair.agent_a.kill();

    // An administrator's mistake, with no agent alive to repair it.
    let redirects = pins::named(pair.agent_a.instance(), "connect4");
    assert!(!redirects.is_empty(), "{:?}", pins::list(pair.agent_a.instance()));
    for pin in redirects {
        if pins::detach(&pin).is_err() {
            fs::remove_file(&pin).expect("removing a pin");
        }
    }
    // While the redirect works, the answer is ECONNREFUSED; the guard's drop is a time-out.
    wait::wait_until("a connect that is no longer redirected", GENEROUS, || {
        let socket = Socket { connect_limit: Some(1_000), ..Socket::default() };
        let job = Job::Client { socket, to: target, steps: say(&secret) };
        let seen = probe::run(&pair.client, &job);
        assert_ne!(seen.ended_by(), None, "{seen:?}");
        seen.error != Some(libc::ECONNREFUSED)
    });
    assert_eq!(tap.sightings(&secret), 0);
    assert_eq!(open.pending(), 0, "a protected connection came through without the agent");

    pair.agent_a.launch();
    assert!(pair.agent_a.status().counter("guard_dropped_outbound") > 0);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let seen = pair.connect(pair.target(Family::V4), &say(&secret));
    assert_eq!(seen.last().text, secret, "the restarted agent put the redirect back: {seen:?}");
    assert_ciphertext(&tap, PORT, &secret);
}

/// A SYN-ACK that carries a SYN cookie belongs to no socket, so whoever looks only at those lets a
/// flood of SYNs open the port. Here every SYN is answered as in a flood, in a namespace that no
/// agent has steered.
#[test]
fn a_strict_port_is_not_answered_by_the_application_when_no_agent_steers_it() {
    for ports in [None, Some(&[PORT][..])] {
        let mut pair = Pair::with(Setting::Pods, |_, b| {
            b.workloads[0].inbound.as_mut().unwrap().ports = ports.map(<[u16]>::to_vec);
        });
        let dropped = pair.agent_b.status().counter("guard_dropped_inbound");
        pair.agent_b.kill();
        let stranger = pair.world.a.host("stranger");
        let tap = pair.world.tap();
        let secret = marker();
        for (index, family) in (20..).zip(FAMILIES) {
            let pod = pair.world.b.pod(index);
            let app = Place::new(&pod.netns, &pair.world.b.host(&format!("web-{index}")).cgroup);
            let seen = flood(&app, &stranger, pod.addresses.at(family, PORT), &secret);
            for (seen, _) in &seen {
                assert_ne!(seen.error, None, "{ports:?} {family:?}: {seen:?}");
            }
            let accepted = seen.iter().map(|(_, accepted)| accepted).sum::<usize>();
            assert_eq!(accepted, 0, "{ports:?} {family:?}: the application was reached");
        }
        assert_eq!(tap.sightings(&secret), 0, "{ports:?}: the application has spoken");
        assert!(!tap.attempts(PORT).is_empty());
        pair.agent_b.launch();
        assert!(pair.agent_b.status().counter("guard_dropped_inbound") > dropped, "{ports:?}");
    }
}

/// The same clients where no agent has ever run: the application answers.
#[test]
fn without_an_agent_the_application_answers_a_flood() {
    let world = World::new();
    let tap = world.tap();
    let secret = marker();
    for (index, family) in (20..).zip(FAMILIES) {
        let pod = world.b.pod(index);
        let app = Place::new(&pod.netns, &world.b.host(&format!("web-{index}")).cgroup);
        let to = pod.addresses.at(family, PORT);
        for (seen, accepted) in
            flood(&app, &world.a.host(&format!("stranger-{index}")), to, &secret)
        {
            assert_eq!((seen.error, accepted), (None, 1), "{family:?}: {seen:?}");
        }
    }
    assert!(tap.sightings(&secret) > 0);
}

/// An application that speaks first, and clients whose SYNs are answered with SYN cookies. What each
/// of them saw, and how many connections the application accepted meanwhile.
fn flood(app: &Place, stranger: &Place, to: SocketAddr, secret: &str) -> Vec<(Connection, usize)> {
    app.netns.sysctl("ipv4/tcp_syncookies", "2");
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let steps = [Step::Send(secret.to_owned()), Step::ReceiveToEnd];
    let mut app = Probe::start(app, &server(any(family, PORT), &steps));
    let socket = Socket { connect_limit: Some(1_000), ..Socket::default() };
    let job = Job::Client { socket, to, steps: say("let me in") };
    let attempt = |_| {
        let seen = probe::run(stranger, &job);
        // The application tells of a connection a moment after the client has seen its first words.
        if seen.error.is_none() {
            wait::wait_until("the application's word", GENEROUS, || app.pending() > 0);
        }
        let accepted = app.pending();
        app.events_so_far();
        (seen, accepted)
    };
    (0..3).map(attempt).collect()
}
