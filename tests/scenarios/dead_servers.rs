//! A dead server looks dead: to the next `connect()` of a workload, to a health check, and to the network.

use std::fs;

use sheath_tests::config::Select;
use sheath_tests::pair::{PORT, Pair, SETTINGS, Setting, any, client, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::Step;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family};

/// The longest that an answer takes which comes at once.
const AT_ONCE_MS: u64 = 3_000;

#[test]
fn a_dead_server_is_refused_by_connect_until_it_is_back() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        for family in FAMILIES {
            let to = pair.target(family);
            let context = format!("{setting:?} {family:?}");
            wait::wait_until(&format!("connect() to be refused: {context}"), GENEROUS, || {
                let seen = pair.connect(to, &say("anybody there?"));
                assert_ne!(seen.ended_by(), None, "{context}: {seen:?}");
                seen.error == Some(libc::ECONNREFUSED)
            });
            // And again, not every other time.
            for _ in 0..5 {
                let seen = pair.connect(to, &say("anybody there?"));
                assert_eq!(seen.error, Some(libc::ECONNREFUSED), "{context}: {seen:?}");
                assert!(seen.connect_ms < AT_ONCE_MS, "{context}: {seen:?}");
            }
            pair.agent_a.wait_for_access("the refusal in the access log", |line| {
                line.destination == to.to_string() && line.reason.contains("has not come back")
            });
            let _echo = pair.serve(family, &[Step::Echo]);
            wait::wait_until(&format!("the server that is back: {context}"), GENEROUS, || {
                pair.connect(to, &say("hello")).last().text == "hello"
            });
        }
    }
}

/// What one workload has run into is not held against another in the same namespace.
#[test]
fn a_dead_destination_is_remembered_for_who_dialled_it() {
    let pair = Pair::with(Setting::Host, |a, _| {
        let mut other = a.workloads[0].clone();
        other.name = "other".into();
        let Select::Cgroup(cgroup) = &mut other.select else { unreachable!("a cgroup") };
        *cgroup = cgroup.replace("client", "other");
        a.workloads.push(other);
    });
    let other = Place::new(&pair.client.netns, &pair.world.a.host("other").cgroup);
    let _resident = Probe::start(&other, &sheath_tests::script::Job::Idle);
    pair.agent_a.wait_enrolled("other", &other);
    let to = pair.target(Family::V4);
    wait::wait_until("connect() to be refused", GENEROUS, || {
        pair.connect(to, &say("anybody there?")).error == Some(libc::ECONNREFUSED)
    });
    let seen = probe::run(&other, &client(to, &say("anybody there?")));
    assert_eq!((seen.error, seen.ended_by().is_some()), (None, true), "{seen:?}");
}

/// As a client that goes on to a name's second address sees it, and a load balancer that checks by connecting.
#[test]
fn haproxys_check_takes_a_dead_server_out() {
    const FRONT: u16 = 7000;
    let pair = Pair::new(Setting::Pods);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let (live, dead) = (pair.target(Family::V4), pair.server_addresses.at(Family::V4, PORT + 1));
    let file = pair.world.dir.path().join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 100\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n\
         listen all\n  bind 127.0.0.1:{FRONT}\n  balance roundrobin\n  retries 0\n\
         \x20 default-server check inter 300ms fall 2 rise 2\n  server live {live}\n  server dead {dead}\n"
    );
    fs::write(&file, text).expect("haproxy's configuration");
    let mut command = pair.client.command("haproxy");
    let _haproxy = pair.client.spawn(command.args(["-db", "-q", "-f"]).arg(&file));
    pair.client.wait_listening(FRONT);
    let front = format!("127.0.0.1:{FRONT}").parse().unwrap();
    let is_served = || pair.connect(front, &say("hello")).last().text == "hello";
    wait::wait_until("12 requests in a row to be served", GENEROUS, || {
        (0..12).all(|_| is_served())
    });
    for n in 0..12 {
        assert!(is_served(), "request {n}");
    }
}

/// Nothing listens: the agent does not pretend that something does. Something listens: the agent answers, at once.
#[test]
fn the_network_is_refused_a_strict_port_that_nothing_listens_on() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        let stranger = pair.world.a.host("stranger");
        for family in FAMILIES {
            let context = format!("{setting:?} {family:?}");
            let to = pair.target(family);
            // Where every port is strict the agent learns of a silent one by the first who is allowed to call.
            wait::wait_until(&format!("a refusal: {context}"), GENEROUS, || {
                let _ = pair.connect(to, &say("anybody there?"));
                let seen = probe::run(&stranger, &client(to, &say("hello")));
                assert_ne!(seen.ended_by(), None, "{context}: {seen:?}");
                seen.error == Some(libc::ECONNREFUSED)
            });
            let mut app = Probe::start(&pair.server, &server(any(family, PORT), &[Step::Echo]));
            let seen = probe::run(&stranger, &client(to, &say("hello")));
            assert_eq!((seen.error, seen.ended_by()), (None, Some(libc::ECONNRESET)), "{context}");
            assert_eq!(app.pending(), 0, "{context}");
        }
    }
}
