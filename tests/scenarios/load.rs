//! Many flows and large ones are correct, and leave nothing behind: no descriptor, no map entry,
//! no flow.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use sheath_tests::agent::Agent;
use sheath_tests::config::{Config, Reuse, Sessions};
use sheath_tests::pair::{Pair, Setting, client, say};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Socket, Step, errno_name};
use sheath_tests::serial;
use sheath_tests::status::Status;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::Family;

const LONG: Duration = Duration::from_secs(180);

#[test]
fn one_gibibyte_each_way_arrives_intact() {
    const GIB: u64 = 1 << 30;
    let _heavy = serial::heavy();
    let pair = pair(Setting::Host);
    let before = Rest::of(&pair);
    let mut server = pair.serve(Family::V4, &[Step::Exchange { bytes: GIB, seed: 11 }]);
    let steps = [Step::Exchange { bytes: GIB, seed: 7 }];
    let mut client = Probe::start(&pair.client, &client(pair.target(Family::V4), &steps));
    let seen = client.connection_within(LONG);
    let served = server.connection_within(LONG);
    assert_eq!((seen.ended_by(), served.ended_by()), (None, None), "{seen:?} {served:?}");
    assert_eq!((seen.last().bytes, served.last().bytes), (GIB, GIB));
    assert_eq!(seen.last().received_digest, served.last().sent_digest);
    assert_eq!(served.last().received_digest, seen.last().sent_digest);
    before.assert_nothing_left(&pair);
}

#[test]
fn two_thousand_concurrent_flows() {
    load(Setting::Host, Family::V6, |to| Job::Crowd { to, count: 2_000 });
}

#[test]
fn thousands_of_short_flows() {
    load(Setting::Pods, Family::V4, |to| Job::Churn { to, count: 3_000, threads: 8 });
}

fn load(setting: Setting, family: Family, job: impl FnOnce(std::net::SocketAddr) -> Job) {
    let _heavy = serial::heavy();
    let pair = pair(setting);
    let before = Rest::of(&pair);
    let _echo = pair.serve(family, &[Step::Echo]);
    let job = job(pair.target(family));
    let tally = Probe::start(&pair.client, &job).tally(LONG);
    let errors: Vec<_> = tally.errors.iter().map(|&raw| errno_name(Some(raw))).collect();
    let failed = |agent: &Agent| {
        let lines = agent.access().into_iter().filter(|line| line.outcome != "ok");
        lines.collect::<Vec<_>>()
    };
    assert!(
        errors.is_empty(),
        "{} ok; failed: {errors:?}\nat A: {:#?}\nat B: {:#?}",
        tally.ok,
        failed(&pair.agent_a),
        failed(&pair.agent_b)
    );
    before.assert_nothing_left(&pair);
}

/// Flows that fail halfway must leave as little as those that succeed.
#[test]
fn failed_flows_leave_nothing() {
    let mut pair = pair(Setting::Host);
    let before = Rest::of(&pair);
    let server = pair.serve(Family::V4, &[Step::Receive(4), Step::Reset]);
    for _ in 0..20 {
        let reset = pair.connect(pair.target(Family::V4), &say("reset me"));
        assert_eq!(reset.ended_by(), Some(libc::ECONNRESET));
        // Gone before the agents have shaken hands, with a FIN and with a reset.
        pair.connect(pair.target(Family::V4), &[]);
        pair.connect(pair.target(Family::V4), &[Step::Reset]);
    }
    // What is dialled once the server is gone would be remembered as unreachable.
    pair.agent_a.wait_for_status("no flow", Status::is_idle);
    drop(server);
    // From an address of its own choice: what such a connection runs into is not remembered, so each is dialled.
    let source = SocketAddr::new(pair.client_addresses.of(Family::V4), 0);
    let connect = |pair: &Pair, text: &str| {
        let socket = Socket { bind: Some(source), ..Socket::default() };
        let job = Job::Client { socket, to: pair.target(Family::V4), steps: say(text) };
        probe::run(&pair.client, &job)
    };
    for _ in 0..20 {
        let refused = connect(&pair, "refuse me");
        assert_eq!(refused.ended_by(), Some(libc::ECONNRESET));
    }
    pair.agent_b.kill();
    for _ in 0..20 {
        let closed = connect(&pair, "nobody is there");
        assert_eq!(closed.ended_by(), Some(libc::ECONNRESET));
    }
    pair.agent_b.launch();
    before.assert_idle(&pair.agent_a, before.files_a);
    pair.agent_b.wait_for_status("no flow", Status::is_idle);
}

/// Strangers who connect and say nothing cost honest clients nothing, and are not kept for ever.
#[test]
fn silent_strangers_are_dropped() {
    let pair = Pair::with(Setting::Host, |a, b| {
        keep_shortly(a, b);
        b.timeouts.handshake = "3s";
    });
    let rest = Rest::of(&pair);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let to = pair.target(Family::V4);
    let connect = || TcpStream::connect(to).expect("a connection to the agent");
    let strangers: Vec<_> =
        pair.world.a.netns.run(|| std::iter::repeat_with(connect).take(300).collect());
    assert_eq!(pair.connect(to, &say("honest")).last().text, "honest");
    for mut stranger in strangers {
        stranger.set_read_timeout(Some(GENEROUS)).expect("SO_RCVTIMEO");
        let end = stranger.read(&mut [0; 64]);
        let waited = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        assert!(!end.as_ref().is_err_and(waited), "a silent stranger is still connected");
    }
    rest.assert_nothing_left(&pair);
}

fn pair(setting: Setting) -> Pair {
    Pair::with(setting, keep_shortly)
}

/// Sessions are kept for the next flow, but not for as long as these scenarios wait.
fn keep_shortly(a: &mut Config, b: &mut Config) {
    for config in [a, b] {
        config.sessions = Sessions::reused(Reuse { max_idle: "1s", ..Reuse::default() });
    }
}

/// What the agents hold at rest.
struct Rest {
    files_a: usize,
    files_b: usize,
}

impl Rest {
    /// After one flow, so that what is made once and kept is not taken for a leak.
    fn of(pair: &Pair) -> Self {
        let _echo = pair.serve(Family::V4, &[Step::Echo]);
        assert_eq!(pair.connect(pair.target(Family::V4), &say("warm")).last().text, "warm");
        for agent in [&pair.agent_a, &pair.agent_b] {
            agent.wait_for_status("no flow", Status::is_idle);
        }
        Self { files_a: pair.agent_a.open_files(), files_b: pair.agent_b.open_files() }
    }

    fn assert_nothing_left(&self, pair: &Pair) {
        self.assert_idle(&pair.agent_a, self.files_a);
        self.assert_idle(&pair.agent_b, self.files_b);
    }

    fn assert_idle(&self, agent: &Agent, files: usize) {
        agent.wait_for_status("nothing left of any flow", Status::is_idle);
        let closed = wait::try_for(GENEROUS, || (agent.open_files() <= files).then_some(()));
        assert!(closed.is_some(), "{} descriptors, {files} before", agent.open_files());
    }
}
