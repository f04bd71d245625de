//! Between agents a TLS session carries flow after flow. Applications notice nothing of it, and nobody gets a session
//! that was not made for them.

use std::thread;
use std::time::Duration;

use sheath_tests::config::{Config, Reuse, Sessions, Workload, spiffe_id};
use sheath_tests::pair::{PORT, Pair, SETTINGS, Setting, any, client, say, send, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Connection, Job, Socket, Step, errno_name};
use sheath_tests::serial;
use sheath_tests::status::{Access, Status};
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family};

const LONG: Duration = Duration::from_secs(180);

/// A second protected port of the server.
const OTHER_PORT: u16 = 9090;

/// The same for both agents.
fn reusing(reuse: Reuse) -> impl FnOnce(&mut Config, &mut Config) {
    move |a, b| {
        a.sessions = Sessions::reused(reuse.clone());
        b.sessions = Sessions::reused(reuse);
    }
}

/// The usual scene, in which sessions end for reasons alone.
#[track_caller]
fn lasting(setting: Setting) -> Pair {
    Pair::with(setting, reusing(Reuse::default()))
}

/// Waits until no flow is open and the client's agent keeps this many sessions.
#[track_caller]
fn wait_kept(pair: &Pair, count: u64) {
    pair.agent_a.wait_for_status("the sessions that are kept", |status| {
        status.is_idle() && status.idle_sessions == count
    });
}

/// Waits for the lines of `count` flows of an agent, in their order.
#[track_caller]
fn wait_lines(agent: &sheath_tests::agent::Agent, count: usize) -> Vec<Access> {
    wait::wait_for("the flows in the access log", GENEROUS, || {
        let lines = agent.access();
        (lines.len() >= count).then_some(lines)
    })
}

fn reused(lines: &[Access]) -> Vec<bool> {
    lines.iter().map(|line| line.reused).collect()
}

#[test]
fn flows_one_after_the_other_share_a_session_and_see_nothing_of_it() {
    const FLOWS: usize = 4;
    for setting in SETTINGS {
        let pair = lasting(setting);
        for (round, family) in FAMILIES.into_iter().enumerate() {
            let tap = pair.world.tap();
            let mut app = pair.serve(family, &[Step::Echo]);
            let target = pair.target(family);
            let mut ports = Vec::new();
            for number in 0..FLOWS {
                let text = format!("flow {number}");
                let seen = pair.connect(target, &say(&text));
                assert_eq!((seen.ended_by(), seen.last().text), (None, text), "{setting:?}");
                // Each end sees the other, and no agent.
                let local = seen.local.expect("the client's own address");
                assert_eq!(local.ip(), pair.client_addresses.of(family));
                assert_eq!(seen.peer, Some(target));
                let served = app.connection();
                assert_eq!((served.accepted, served.peer), (Some(local), Some(local)));
                assert_eq!(served.local, Some(target));
                ports.push(local.to_string());
                wait_kept(&pair, 1 + round as u64);
            }
            assert_eq!((tap.attempts(PORT).len(), tap.handshakes(PORT)), (1, 1), "{setting:?}");
            for agent in [&pair.agent_a, &pair.agent_b] {
                let lines = wait_lines(agent, (1 + round) * FLOWS).split_off(round * FLOWS);
                assert_eq!(reused(&lines), [false, true, true, true], "{lines:#?}");
                assert!(lines.iter().all(|line| line.outcome == "ok"), "{lines:#?}");
                assert!(lines.iter().all(|line| line.protection == "mtls"), "{lines:#?}");
                assert!(lines.iter().all(|line| line.destination == target.to_string()));
                assert!(lines.iter().all(|line| (line.sent, line.received) == (6, 6)));
                // The first is known by the port of the connection that it has made on the wire.
                let sources = lines[1..].iter().map(|line| &line.source);
                assert!(sources.eq(&ports[1..]), "{ports:?} {lines:#?}");
            }
        }
        let reused = pair.agent_a.status().counter("sessions_reused");
        assert_eq!(reused, 2 * (FLOWS as u64 - 1));
    }
}

/// As many sessions as there have been flows at once, and no more, however many come after.
#[test]
fn flows_at_once_have_a_session_each_which_others_use_later() {
    const AT_ONCE: usize = 32;
    let _heavy = serial::heavy();
    let pair = lasting(Setting::Pods);
    let tap = pair.world.tap();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let to = pair.target(Family::V4);
    for job in [
        Job::Crowd { to, count: AT_ONCE },
        Job::Crowd { to, count: AT_ONCE },
        Job::Churn { to, count: 1_000, threads: AT_ONCE / 2 },
    ] {
        let tally = Probe::start(&pair.client, &job).tally(LONG);
        assert!(tally.errors.is_empty(), "{tally:?}");
        let rest = pair.agent_a.wait_for_status("no flow", Status::is_idle);
        let handshakes = tap.handshakes(PORT);
        // Where others work, an agent may not answer on a session for so long that it is taken for dead.
        let dead = rest.counter("sessions_found_dead");
        let sessions = handshakes as u64 - dead;
        // Some of a crowd may have ended before the last has begun. And the next flow of a churn may begin before the session of the
        // last is back, which takes long where others work.
        let most = if matches!(job, Job::Churn { .. }) { 4 * AT_ONCE } else { AT_ONCE };
        assert!((2..=most as u64).contains(&sessions), "{sessions} sessions, and {dead} dead");
        assert_eq!((tap.attempts(PORT).len(), rest.idle_sessions), (handshakes, sessions));
    }
}

#[test]
fn no_more_sessions_are_kept_than_configured() {
    let pair = Pair::with(Setting::Host, reusing(Reuse { per_workload: 3, ..Reuse::default() }));
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let to = pair.target(Family::V4);
    let tally = Probe::start(&pair.client, &Job::Crowd { to, count: 32 }).tally(LONG);
    assert!(tally.errors.is_empty(), "{tally:?}");
    wait_kept(&pair, 3);
    // What was too much is closed on both sides.
    let descriptors = || (pair.agent_a.open_files(), pair.agent_b.open_files());
    let before = descriptors();
    for _ in 0..5 {
        pair.assert_served();
    }
    wait_kept(&pair, 3);
    wait::wait_until("no more descriptors", GENEROUS, || {
        let now = descriptors();
        now.0 <= before.0 && now.1 <= before.1
    });
}

#[test]
fn where_no_session_is_kept_each_flow_has_its_own() {
    let pair = Pair::with(Setting::Host, reusing(Reuse { per_workload: 0, ..Reuse::default() }));
    for family in FAMILIES {
        let tap = pair.world.tap();
        let _echo = pair.serve(family, &[Step::Echo]);
        for _ in 0..3 {
            let seen = pair.connect(pair.target(family), &say("hello"));
            assert_eq!(seen.last().text, "hello", "{seen:?}");
            wait_kept(&pair, 0);
        }
        assert_eq!((tap.attempts(PORT).len(), tap.handshakes(PORT)), (3, 3));
    }
    let lines = wait_lines(&pair.agent_b, 6);
    assert!(lines.iter().all(|line| !line.reused), "{lines:#?}");
}

/// In the same namespace, to the same destination: each has shown its own certificate.
#[test]
fn another_workload_never_uses_the_session() {
    let pair = Pair::with(Setting::Host, |a, b| {
        let cgroup = format!("{}/neighbour", a.capture.cgroup);
        a.workloads.push(Workload::new("neighbour", &cgroup).outbound("require", &[]));
        b.workloads[0]
            .inbound
            .as_mut()
            .expect("an inbound mode")
            .allow
            .push(spiffe_id("neighbour"));
    });
    let neighbour = pair.world.a.host("neighbour");
    let _resident = Probe::start(&neighbour, &Job::Idle);
    pair.agent_a.wait_enrolled("neighbour", &neighbour);
    let tap = pair.world.tap();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let hello = client(pair.target(Family::V4), &say("hello"));
    for round in 0..3 {
        for (kept, place) in [(1, &pair.client), (2, &neighbour)] {
            let seen = probe::run(place, &hello);
            assert_eq!(seen.last().text, "hello", "{seen:?}");
            wait_kept(&pair, if round == 0 { kept } else { 2 });
        }
    }
    assert_eq!((tap.attempts(PORT).len(), tap.handshakes(PORT)), (2, 2));
    let lines = wait_lines(&pair.agent_b, 6);
    for (index, line) in lines.iter().enumerate() {
        let name = ["client", "neighbour"][index % 2];
        assert_eq!((&line.peer_id, line.reused), (&spiffe_id(name), index > 1), "{lines:#?}");
    }
}

#[test]
fn another_destination_never_shares_the_session() {
    let pair = lasting(Setting::Pods);
    let taps = pair.world.tap();
    let mut apps = Vec::new();
    for family in FAMILIES {
        for port in [PORT, OTHER_PORT] {
            let answer = [Step::Send(format!("{family:?} {port}")), Step::Echo];
            apps.push(Probe::start(&pair.server, &server(any(family, port), &answer)));
        }
    }
    for round in 0..2 {
        let mut kept = 0;
        for family in FAMILIES {
            for port in [PORT, OTHER_PORT] {
                let to = pair.server_addresses.at(family, port);
                let seen = pair.connect(to, &say("?"));
                assert_eq!(seen.last().text, format!("{family:?} {port}?"), "{seen:?}");
                kept += 1;
                wait_kept(&pair, if round == 0 { kept } else { 4 });
            }
        }
    }
    for port in [PORT, OTHER_PORT] {
        assert_eq!((taps.attempts(port).len(), taps.handshakes(port)), (2, 2));
    }
}

/// An application that binds its end is seen from there, whatever sessions there are from elsewhere.
#[test]
fn another_source_address_never_shares_the_session() {
    let pair = lasting(Setting::Host);
    let mut app = pair.serve(Family::V4, &[Step::Echo]);
    let to = pair.target(Family::V4);
    let own = pair.client_addresses.at(Family::V4, 0);
    let extra = pair.world.a.extra.at(Family::V4, 0);
    pair.world.b.netns.ip(&format!("route add {}/32 dev wire\n", extra.ip()));
    let tap = pair.world.tap();
    for _ in 0..2 {
        for from in [own, extra] {
            let socket = Socket { bind: Some(from), ..Socket::default() };
            let seen = probe::run(&pair.client, &Job::Client { socket, to, steps: say("hello") });
            assert_eq!(seen.last().text, "hello", "{seen:?}");
            assert_eq!(app.connection().accepted.map(|client| client.ip()), Some(from.ip()));
            pair.agent_a.wait_for_status("no flow", Status::is_idle);
        }
    }
    assert_eq!((tap.attempts(PORT).len(), tap.handshakes(PORT)), (2, 2));
}

#[test]
fn idle_and_old_sessions_end_on_both_sides() {
    let idle = Reuse { max_idle: "1s", ..Reuse::default() };
    let old = Reuse { max_age: "2s", ..Reuse::default() };
    for reuse in [idle, old] {
        let pair = Pair::with(Setting::Host, reusing(reuse));
        let _echo = pair.serve(Family::V4, &[Step::Echo]);
        let to = pair.target(Family::V4);
        pair.assert_served();
        wait_kept(&pair, 0);
        let rest = (pair.agent_a.open_files(), pair.agent_b.open_files());
        let tap = pair.world.tap();
        let tally = Probe::start(&pair.client, &Job::Crowd { to, count: 16 }).tally(LONG);
        assert!(tally.errors.is_empty(), "{tally:?}");
        wait_kept(&pair, 0);
        wait::wait_until("closed descriptors", GENEROUS, || {
            pair.agent_a.open_files() <= rest.0 && pair.agent_b.open_files() <= rest.1
        });
        let before = tap.handshakes(PORT);
        pair.assert_served();
        assert_eq!(tap.handshakes(PORT), before + 1);
    }
}

/// Has an echo served once, so that there is a session for the next flow.
#[track_caller]
fn warm(pair: &Pair, family: Family) {
    let _echo = pair.serve(family, &[Step::Echo]);
    // A server that was dead a moment ago is refused until it has been seen alive.
    wait::wait_until("the server", GENEROUS, || {
        pair.connect(pair.target(family), &say("warm")).last().text == "warm"
    });
    pair.agent_a
        .wait_for_status("the session", |status| status.is_idle() && status.idle_sessions > 0);
}

/// What both applications see of a flow on a session that was open before, and what the agents tell of it.
struct Played {
    client: Connection,
    server: Connection,
    lines: [Access; 2],
}

/// Plays a script on a session that has had a flow already.
#[track_caller]
fn play_on_reused(pair: &Pair, family: Family, client: &[Step], server: &[Step]) -> Played {
    warm(pair, family);
    let agents = [&pair.agent_a, &pair.agent_b];
    let before = agents.map(|agent| wait_lines(agent, 1).len());
    let mut app = pair.serve(family, server);
    let client = pair.connect(pair.target(family), client);
    let server = app.connection();
    let lines = [0, 1].map(|index| wait_lines(agents[index], before[index] + 1).pop().unwrap());
    for line in &lines {
        assert!(line.reused, "{line:?}");
    }
    Played { client, server, lines }
}

#[test]
fn either_end_may_speak_or_end_first() {
    let pair = lasting(Setting::Host);
    for family in FAMILIES {
        let greets = [send("220 ready"), Step::Receive(4), send("221 bye")];
        let greeted = [Step::Receive(9), send("QUIT"), Step::ReceiveToEnd];
        let played = play_on_reused(&pair, family, &greeted, &greets);
        assert_eq!(played.client.steps[0].text, "220 ready", "{:?}", played.client);
        assert_eq!((played.client.ended_by(), &*played.client.last().text), (None, "221 bye"));

        let asks = say("question");
        let answers = [Step::ReceiveToEnd, send("answer")];
        let played = play_on_reused(&pair, family, &asks, &answers);
        assert_eq!((played.client.ended_by(), &*played.client.last().text), (None, "answer"));
        assert_eq!(played.server.steps[0].text, "question");

        let tells = [send("answer"), Step::EndSending, Step::ReceiveToEnd];
        let listens = [Step::ReceiveToEnd, send("question")];
        let played = play_on_reused(&pair, family, &listens, &tells);
        assert_eq!((played.client.ended_by(), &*played.client.steps[0].text), (None, "answer"));
        assert_eq!((played.server.ended_by(), &*played.server.last().text), (None, "question"));
        assert!(played.lines.iter().all(|line| line.outcome == "ok"), "{:?}", played.lines);

        // Nothing at all is a flow, too.
        let played = play_on_reused(&pair, family, &say(""), &[Step::ReceiveToEnd]);
        assert_eq!((played.client.ended_by(), played.server.ended_by()), (None, None));
    }
}

#[test]
fn a_reset_by_either_application_is_one_and_ends_the_session() {
    let pair = lasting(Setting::Host);
    for family in FAMILIES {
        let tap = pair.world.tap();
        let resets = [Step::Receive(8), Step::Reset];
        let asks = [send("question"), Step::ReceiveToEnd];
        let played = play_on_reused(&pair, family, &asks, &resets);
        assert_eq!(played.client.ended_by(), Some(libc::ECONNRESET), "{:?}", played.client);
        assert!(played.lines.iter().all(|line| line.outcome == "reset"), "{:?}", played.lines);
        assert_eq!(tap.handshakes(PORT), 1);

        // The next flow, in here, has a new session: only then is there one to reuse.
        let (greets, resets) =
            ([send("hello"), Step::ReceiveToEnd], [Step::Receive(5), Step::Reset]);
        let played = play_on_reused(&pair, family, &resets, &greets);
        assert_eq!(played.server.ended_by(), Some(libc::ECONNRESET), "{:?}", played.server);
        assert!(played.lines.iter().all(|line| line.outcome == "reset"), "{:?}", played.lines);
        assert_eq!(tap.handshakes(PORT), 2);
        wait_kept(&pair, 0);
    }
}

/// The server's application is gone: to the first client that is a reset, and both agents say why. From then on the
/// port is known for silent, so each case has a server of its own.
#[test]
fn a_flow_that_nobody_takes_is_refused_on_any_session() {
    for family in FAMILIES {
        for is_warm in [false, true] {
            let pair = lasting(Setting::Pods);
            if is_warm {
                warm(&pair, family);
            }
            let before = [&pair.agent_a, &pair.agent_b].map(|agent| agent.access().len());
            let seen = pair.connect(pair.target(family), &say("anybody there?"));
            assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
            for (agent, before) in [&pair.agent_a, &pair.agent_b].into_iter().zip(before) {
                let line = wait_lines(agent, before + 1).pop().unwrap();
                assert_eq!((&*line.outcome, line.reused), ("refused", is_warm), "{line:?}");
            }
            wait_kept(&pair, 0);
        }
    }
}

/// The server's agent dies amid a flow: what came before is not taken for all there is.
#[test]
fn a_truncated_flow_is_a_reset() {
    let mut pair = lasting(Setting::Host);
    warm(&pair, Family::V4);
    let _app = pair.serve(Family::V4, &[send("half an ans"), Step::ReceiveToEnd]);
    let steps = [Step::Receive(11), Step::Pause, Step::ReceiveToEnd];
    let mut asking = Probe::start(&pair.client, &client(pair.target(Family::V4), &steps));
    asking.wait_paused();
    pair.agent_b.kill();
    asking.go();
    let seen = asking.connection();
    assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
    assert_eq!(seen.steps[0].text, "half an ans");
    let line = wait_lines(&pair.agent_a, 2).pop().unwrap();
    assert_eq!((&*line.outcome, line.reused), ("reset", true), "{line:?}");
    pair.agent_b.launch();
    pair.agent_b.wait_enrolled("web", &pair.server);
}

/// Thousands of flows on a few sessions, many of them broken off at any moment: every answer is that to its own
/// question, to the byte.
#[test]
fn no_flow_ever_sees_a_byte_of_another() {
    let _heavy = serial::heavy();
    let pair = lasting(Setting::Pods);
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        let to = pair.target(family);
        for job in [
            Job::Churn { to, count: 2_000, threads: 16 },
            Job::RudeChurn { to, count: 1_000, threads: 16 },
        ] {
            let tally = Probe::start(&pair.client, &job).tally(LONG);
            let errors: Vec<_> = tally.errors.iter().map(|&raw| errno_name(Some(raw))).collect();
            assert!(errors.is_empty(), "{} ok; failed: {errors:?}", tally.ok);
        }
    }
    pair.agent_a.wait_for_status("no flow", Status::is_idle);
    let status = pair.agent_a.status();
    assert!(status.counter("sessions_reused") > 2_000, "{:?}", status.counters);
}

/// Sessions hold the namespace that they were made in. With its last process it goes all the same.
#[test]
fn a_pod_that_goes_takes_its_sessions_along() {
    let pair = lasting(Setting::Host);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let pod = pair.world.a.pod(7);
    let place = Place::new(&pod.netns, &pair.world.a.host("client-7").cgroup);
    let before = pair.agent_a.open_files();
    let resident = Probe::start(&place, &Job::Idle);
    pair.agent_a.wait_enrolled("client", &place);
    let seen = probe::run(&place, &client(pair.target(Family::V4), &say("hello")));
    assert_eq!(seen.last().text, "hello", "{seen:?}");
    wait_kept(&pair, 1);
    // Long enough to be at home there. Whoever asks for the status has the agent look.
    thread::sleep(Duration::from_millis(300));
    pair.agent_a.status();
    resident.kill();
    drop((place, pod));
    // The other end of the pod's link goes with its namespace.
    let node = &pair.world.a.netns;
    wait::wait_until("the end of the namespace", GENEROUS, || !node.has_interface("pod7"));
    wait_kept(&pair, 0);
    wait::wait_until("closed descriptors", GENEROUS, || pair.agent_a.open_files() <= before);
}
