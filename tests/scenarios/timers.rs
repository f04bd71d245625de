//! How long a connection may stand still. Whoever waits for longer is cut off, and told; whoever moves is not.

use std::time::{Duration, Instant};

use sheath_tests::agent::Agent;
use sheath_tests::config::{Config, Reuse, Sessions};
use sheath_tests::live::LiveFlow;
use sheath_tests::pair::{Pair, SETTINGS, Setting, any, client, living, send, server};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Event, Step};
use sheath_tests::status::Status;
use sheath_tests::wait::GENEROUS;
use sheath_tests::world::{FAMILIES, Family};

/// What is configured below.
const LIMIT: Duration = Duration::from_secs(2);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(2);
/// Much longer than the limit: how long a flow is watched that must not be cut.
const LONG: Duration = Duration::from_secs(7);

/// The agent of the client is impatient, or that of the server: each has to do it alone.
#[derive(Clone, Copy, Debug)]
enum Impatient {
    Client,
    Server,
}

impl Impatient {
    fn agent(self, pair: &Pair) -> &Agent {
        match self {
            Self::Client => &pair.agent_a,
            Self::Server => &pair.agent_b,
        }
    }

    fn config<'c>(self, a: &'c mut Config, b: &'c mut Config) -> &'c mut Config {
        match self {
            Self::Client => a,
            Self::Server => b,
        }
    }
}

fn idle_limit(setting: Setting, impatient: Impatient) -> Pair {
    Pair::with(setting, |a, b| impatient.config(a, b).timeouts.idle = Some("2s"))
}

fn half_closed_limit(setting: Setting, impatient: Impatient) -> Pair {
    Pair::with(setting, |a, b| impatient.config(a, b).timeouts.half_closed = Some("2s"))
}

/// Plays both scripts up to the end that the timer makes: a reset for whoever waits for something.
#[track_caller]
fn assert_cut(pair: &Pair, family: Family, asks: &[Step], serves: &[Step]) {
    let mut app = pair.serve(family, serves);
    let start = Instant::now();
    let seen = pair.connect(pair.target(family), asks);
    let took = start.elapsed();
    assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
    assert!(took >= LIMIT && took < LIMIT + SLACK, "cut after {took:?}");
    let served = app.connection();
    assert_eq!(served.ended_by(), Some(libc::ECONNRESET), "{served:?}");
    for agent in [&pair.agent_a, &pair.agent_b] {
        agent.wait_for_status("nothing left of the flow", |status| {
            status.is_idle() && status.idle_sessions == 0
        });
        let line = agent.access().pop().expect("the flow in the access log");
        assert_eq!((&*line.outcome, &*line.stage), ("reset", "relay"), "{line:?}");
    }
}

/// Who has cut a flow says so; the other agent has heard it.
#[track_caller]
fn assert_reasons(pair: &Pair, impatient: Impatient) {
    let (cutter, other) = match impatient {
        Impatient::Client => (&pair.agent_a, &pair.agent_b),
        Impatient::Server => (&pair.agent_b, &pair.agent_a),
    };
    for line in cutter.access() {
        assert!(line.reason.contains("nothing has moved for 2s"), "{line:?}");
    }
    for line in other.access() {
        assert!(line.reason.contains("nothing has moved for too long"), "{line:?}");
    }
}

#[test]
fn an_idle_flow_is_reset_at_both_ends() {
    for (setting, impatient) in SETTINGS.into_iter().zip([Impatient::Client, Impatient::Server]) {
        let pair = idle_limit(setting, impatient);
        for family in FAMILIES {
            let waits = [send("ab"), Step::Receive(2), Step::ReceiveToEnd];
            assert_cut(&pair, family, &waits, &[Step::Echo]);
            // Not even begun.
            assert_cut(&pair, family, &[Step::ReceiveToEnd], &[Step::ReceiveToEnd]);
        }
        assert_reasons(&pair, impatient);
    }
}

#[test]
fn a_half_closed_flow_is_reset_at_the_end_that_waits() {
    for (setting, impatient) in SETTINGS.into_iter().zip([Impatient::Server, Impatient::Client]) {
        let pair = half_closed_limit(setting, impatient);
        for family in FAMILIES {
            // The client has ended, the server never does.
            let mut app = pair.serve(family, &[Step::ReceiveToEnd, Step::Pause, send("too late")]);
            let start = Instant::now();
            let asks = [send("question"), Step::EndSending, Step::ReceiveToEnd];
            let seen = pair.connect(pair.target(family), &asks);
            let took = start.elapsed();
            assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
            assert!(took >= LIMIT && took < LIMIT + SLACK, "cut after {took:?}");
            app.wait_paused();
            pair.agent_b.wait_for_status("no flow", Status::is_idle);
            app.go();
            let served = app.connection();
            let ended = [libc::ECONNRESET, libc::EPIPE];
            assert!(served.ended_by().is_some_and(|errno| ended.contains(&errno)), "{served:?}");
        }
        pair.agent_a.wait_for_status("no flow", Status::is_idle);
        pair.agent_b.wait_for_status("no flow", Status::is_idle);
        for line in impatient.agent(&pair).access() {
            assert!(line.reason.contains("nothing has moved for 2s"), "{line:?}");
        }
    }
}

/// Also between a client without an agent and the application.
#[test]
fn what_passes_a_permissive_port_in_plaintext_is_reset_when_it_stands_still() {
    let pair = Pair::with(Setting::Host, |_, b| {
        b.workloads[0].inbound.as_mut().expect("an inbound mode").mode = "permissive";
        (b.timeouts.idle, b.timeouts.half_closed) = (Some("2s"), Some("2s"));
    });
    let stranger = pair.world.a.host("stranger");
    let idle = [send("ab"), Step::Receive(2), Step::ReceiveToEnd];
    let half_closed = [send("ab"), Step::EndSending, Step::Receive(2), Step::ReceiveToEnd];
    for family in FAMILIES {
        for asks in [&idle[..], &half_closed] {
            let mut app = pair.serve(family, &[Step::Receive(2), send("cd"), Step::Pause]);
            let start = Instant::now();
            let seen = probe::run(&stranger, &client(pair.target(family), asks));
            let took = start.elapsed();
            assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
            assert!(took >= LIMIT && took < LIMIT + SLACK, "cut after {took:?}");
            app.wait_paused();
            app.go();
            pair.agent_b.wait_for_status("no flow", Status::is_idle);
            let line = pair.agent_b.access().pop().expect("the flow in the access log");
            assert!(line.reason.contains("nothing has moved for 2s"), "{line:?}");
        }
    }
}

/// Words now and then are enough, in both directions or in one, with both directions open or one.
#[test]
fn flows_that_move_are_not_cut() {
    let pair = Pair::with(Setting::Pods, |a, b| {
        for config in [a, b] {
            config.timeouts.idle = Some("2s");
            config.timeouts.half_closed = Some("2s");
        }
    });
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let mut talk = LiveFlow::start(&pair.client, pair.target(Family::V4));
    // One direction alone, to the client and from it; the other one is idle or ended all the time.
    let mut senders = Vec::new();
    let mut receivers = Vec::new();
    for (port, ends_first) in [(9_001, false), (9_002, true)] {
        let to = pair.server_addresses.at(Family::V4, port);
        let mut listens = vec![Step::ReceiveToEnd];
        let mut drips = vec![Step::Drip];
        if ends_first {
            listens.insert(0, Step::EndSending);
        }
        drips.push(Step::EndSending);
        drips.push(Step::ReceiveToEnd);
        senders.push(Probe::start(&pair.server, &server(any(Family::V4, port), &drips)));
        receivers.push(Probe::start(&pair.client, &client(to, &listens)));
        let (port, to) = (port + 100, pair.server_addresses.at(Family::V4, port + 100));
        receivers.push(Probe::start(&pair.server, &server(any(Family::V4, port), &listens)));
        senders.push(Probe::start(&pair.client, &client(to, &drips)));
    }
    std::thread::sleep(LONG);
    talk.assert_alive();
    talk.finish();
    for sender in &mut senders {
        for event in sender.events_so_far() {
            assert!(!matches!(event, Event::Connection(_)), "a flow has ended: {event:?}");
        }
        sender.go();
        let seen = sender.connection();
        assert_eq!(seen.ended_by(), None, "{seen:?}");
        assert!(seen.steps[0].bytes > 5, "{seen:?}");
    }
    for receiver in &mut receivers {
        let seen = receiver.connection();
        assert_eq!(seen.ended_by(), None, "{seen:?}");
    }
    for agent in [&pair.agent_a, &pair.agent_b] {
        agent.wait_for_status("no flow", Status::is_idle);
        assert!(agent.access().iter().all(|line| line.outcome == "ok"), "{:#?}", agent.access());
    }
}

/// Flows that are idle for longer than sessions are kept between flows are none of that timer's business.
#[test]
fn without_a_limit_an_idle_flow_lives_on() {
    let pair = Pair::with(Setting::Host, |a, b| {
        for config in [a, b] {
            config.timeouts.idle = Some("never");
            config.timeouts.half_closed = Some("never");
            let short = Reuse { max_idle: "1s", max_age: "1s", ..Reuse::default() };
            config.sessions = Sessions::reused(short);
        }
    });
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let mut idle = Probe::start(&pair.client, &client(pair.target(Family::V4), &living()));
    idle.wait_paused();
    std::thread::sleep(LONG);
    idle.go();
    let seen = idle.connection_within(GENEROUS);
    assert_eq!((seen.ended_by(), &*seen.last().text), (None, "cd"), "{seen:?}");
}
