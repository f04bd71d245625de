//! The connection that crosses the wire in place of the application's has what the application has asked of its own: whose
//! it is, how it is marked, when it is given up; and it is there wherever the application's would be.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sheath_tests::netns::{NetNs, must_succeed};
use sheath_tests::pair::{PORT, Pair, SETTINGS, Setting, any, client, say, send};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{
    Asked, Buffers, Connection, Job, ListenerOptions, Socket, Step, errno_name,
};
use sheath_tests::world::{FAMILIES, Family, WIRE};

const USER: u32 = 4_711;
const MARK: u32 = 0x29a;

/// AF41 (RFC 4594).
const TRAFFIC_CLASS: u32 = 0x88;

fn run(pair: &Pair, socket: &Socket, to: SocketAddr) -> Connection {
    let job = Job::Client { socket: socket.clone(), to, steps: say("hello") };
    probe::run(&pair.client, &job)
}

fn asking(asked: Asked) -> Socket {
    Socket { asked, ..Socket::default() }
}

/// What `ss` says of the connection over the wire to `to`, in the namespace of the application.
fn wire_leg(netns: &NetNs, to: SocketAddr) -> String {
    let mut ss = netns.command("ss");
    ss.args(["-Htneo", "--tos", "state", "established", "dst", &to.to_string()]);
    must_succeed(&mut ss)
}

#[test]
fn what_an_application_asks_of_its_socket_holds_on_the_wire() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        for family in FAMILIES {
            let _echo = pair.serve(family, &[Step::Echo]);
            let to = pair.target(family);
            let asked = Asked {
                traffic_class: Some(TRAFFIC_CLASS),
                priority: Some(5),
                mark: Some(MARK),
                user_timeout: Some(60_000),
                keepalive: Some(7),
            };
            let job = |socket: Socket| Job::Client {
                socket,
                to,
                steps: vec![send("ab"), Step::Receive(2), Step::Pause, Step::EndSending],
            };
            let socket = Socket { user: Some(USER), ..asking(asked) };
            let mut asks = Probe::start(&pair.client, &job(socket));
            asks.wait_paused();
            let leg = wire_leg(&pair.client.netns, to);
            let class = if family == Family::V4 { "tos:0x88" } else { "tclass:0x88" };
            for fact in [&format!("uid:{USER}"), "fwmark:0x29a", class, "class_id:0x5"] {
                assert!(leg.contains(fact), "no {fact} in {leg}");
            }
            let timer = leg.split_once("timer:(keepalive,").expect("a timer").1;
            let seconds: f64 =
                timer[..timer.find("ms").or(timer.find("sec")).unwrap()].parse().unwrap();
            assert!((4.0..=7.1).contains(&seconds), "{leg}");
            asks.go();
            asks.connection();
            // A session is used again, but not for what has asked for something else.
            let mut plain = Probe::start(&pair.client, &job(Socket::default()));
            plain.wait_paused();
            let leg = wire_leg(&pair.client.netns, to);
            let plain_leg = leg.lines().find(|line| !line.contains("fwmark")).expect("another leg");
            assert!(!plain_leg.contains("uid:") && !plain_leg.contains(class), "{leg}");
            plain.go();
            plain.connection();
        }
    }
}

/// Also those that choose the way, and with it the address that a connection leaves from.
#[test]
fn rules_by_user_and_by_mark_hold_for_the_wire() {
    let pair = Pair::host();
    let netns = &pair.world.a.netns;
    let extra = pair.world.a.extra;
    for (option, family) in [("-4", Family::V4), ("-6", Family::V6)] {
        let to = pair.world.b.addresses.of(family);
        for command in [
            format!("{option} rule add uidrange {USER}-{USER} table 77"),
            format!("{option} route add unreachable {to} table 77"),
            format!("{option} rule add fwmark {MARK} table 78"),
            format!("{option} route add {to} dev {WIRE} src {} table 78", extra.of(family)),
        ] {
            let mut ip = netns.command("ip");
            must_succeed(ip.args(command.split_whitespace()));
        }
        let tap = pair.world.tap();
        let mut echo = pair.serve(family, &[Step::Echo]);
        let to = pair.target(family);
        let user = Socket { user: Some(USER), ..Socket::default() };
        let seen = run(&pair, &user, to);
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
        assert_eq!(echo.pending(), 0, "the rule was by-passed");
        let marked = asking(Asked { mark: Some(MARK), ..Asked::default() });
        let seen = run(&pair, &marked, to);
        assert_eq!((seen.ended_by(), &*seen.last().text), (None, "hello"), "{seen:?}");
        assert_eq!(tap.attempts(PORT).pop().expect("a SYN").ip(), extra.of(family));
        assert_eq!(echo.accepted().ip(), extra.of(family));
        let seen = run(&pair, &Socket::default(), to);
        assert_eq!((seen.ended_by(), &*seen.last().text), (None, "hello"), "{seen:?}");
        assert_eq!(echo.accepted().ip(), pair.client_addresses.of(family));
    }
}

/// Nobody can be reached any more, with data under way.
fn cut_the_wire(pair: &Pair) {
    pair.world.b.netns.ip(&format!("link set {WIRE} down\n"));
}

/// A client that sends now and then when the wire has been cut, and waits for an answer. Returns when its flow was over.
fn outlive_the_wire(pair: &Pair, socket: &Socket, family: Family) -> Duration {
    let _echo = pair.serve(family, &[Step::Echo]);
    let to = pair.target(family);
    let steps = vec![send("ab"), Step::Receive(2), Step::Pause, send("cd"), Step::Receive(2)];
    let job = Job::Client { socket: socket.clone(), to, steps };
    let mut asks = Probe::start(&pair.client, &job);
    asks.wait_paused();
    cut_the_wire(pair);
    let cut = Instant::now();
    asks.go();
    let seen = asks.connection();
    assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{}", errno_name(seen.ended_by()));
    cut.elapsed()
}

#[test]
fn a_peer_that_is_gone_is_given_up_when_the_application_wants() {
    for family in FAMILIES {
        let pair = Pair::host();
        let asked = Asked { user_timeout: Some(3_000), ..Asked::default() };
        let took = outlive_the_wire(&pair, &asking(asked), family);
        assert!(took > Duration::from_secs(2) && took < Duration::from_secs(9), "{took:?}");
    }
}

#[test]
fn a_peer_that_is_gone_is_given_up_after_the_time_of_the_setting() {
    for (family, setting) in FAMILIES.into_iter().zip(SETTINGS) {
        let pair = Pair::with(setting, |a, _| a.timeouts.dead_peer = Some("3s"));
        let took = outlive_the_wire(&pair, &Socket::default(), family);
        assert!(took > Duration::from_secs(2) && took < Duration::from_secs(9), "{took:?}");
        let line = pair.agent_a.wait_for_access("the end", |line| line.outcome == "reset");
        assert!(line.reason.contains("acknowledged nothing of what was sent"), "{line:?}");
    }
}

/// It answers, and that is enough: whoever does not read for an hour has always been let.
#[test]
fn a_peer_that_reads_nothing_is_not_gone() {
    let pair = Pair::with(Setting::Host, |a, b| {
        (a.timeouts.dead_peer, b.timeouts.dead_peer) = (Some("1s"), Some("1s"));
    });
    let job = Job::Server {
        listen: any(Family::V4, PORT),
        socket: ListenerOptions { small_buffer: true, ..ListenerOptions::default() },
        steps: vec![Step::Pause, Step::ReceiveToEnd],
    };
    let mut server = Probe::start(&pair.server, &job);
    let steps = [Step::Fill { at_most: 256 << 20 }, Step::EndSending, Step::ReceiveToEnd];
    let mut writer = Probe::start(&pair.client, &client(pair.target(Family::V4), &steps));
    server.wait_paused();
    std::thread::sleep(Duration::from_secs(8));
    server.go();
    let (served, seen) = (server.connection(), writer.connection());
    assert_eq!((seen.ended_by(), served.ended_by()), (None, None), "{seen:?} {served:?}");
    assert_eq!(served.last().bytes, seen.steps[0].bytes);
}

/// As long as the port is free towards the destination, it does not matter who uses it towards others.
#[test]
fn ports_in_use_towards_others_are_used_towards_a_peer() {
    const ELSEWHERE: u16 = 9_999;
    let pair = Pair::host();
    pair.world.a.netns.sysctl("ipv4/ip_local_port_range", "40000 40031");
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        let elsewhere = pair.world.b.addresses.at(family, ELSEWHERE);
        let _listener = pair.world.b.netns.listen(elsewhere);
        let connect = || TcpStream::connect(elsewhere).ok();
        let held: Vec<_> =
            pair.world.a.netns.run(|| std::iter::from_fn(connect).take(40).collect());
        assert_eq!(held.len(), 32, "all ports are in use");
        for _ in 0..3 {
            let seen = pair.connect(pair.target(family), &say("hello"));
            assert_eq!((seen.ended_by(), &*seen.last().text), (None, "hello"), "{seen:?}");
        }
    }
}

/// An application may have smaller buffers than loopback has segments.
#[test]
fn small_socket_buffers_do_not_make_a_flow_crawl() {
    const BYTES: u64 = 24 << 20;
    const SOON: Duration = Duration::from_secs(5);
    let pair = Pair::host();
    let sends = Step::Exchange { bytes: BYTES, seed: 5 };
    let sides = [(&sends, &Step::ReceiveToEnd), (&Step::ReceiveToEnd, &sends)];
    for (family, small, at_receiver) in [
        (Family::V4, Buffers::Early(16 * 1024), false),
        (Family::V6, Buffers::Late(16 * 1024), false),
        (Family::V4, Buffers::Late(4 * 1024), false),
        (Family::V6, Buffers::Early(8 * 1024), true),
    ] {
        for (is_upload, (asks, serves)) in [true, false].into_iter().zip(sides) {
            let [at_client, at_server] = match is_upload != at_receiver {
                true => [Some(small), None],
                false => [None, Some(small)],
            };
            let job = Job::Server {
                listen: any(family, PORT),
                socket: ListenerOptions { buffers: at_server, ..ListenerOptions::default() },
                steps: vec![serves.clone()],
            };
            let mut server = Probe::start(&pair.server, &job);
            let socket = Socket { buffers: at_client, ..Socket::default() };
            let job = Job::Client { socket, to: pair.target(family), steps: vec![asks.clone()] };
            let start = Instant::now();
            let seen = probe::run(&pair.client, &job);
            let took = start.elapsed();
            let served = server.connection();
            assert_eq!((seen.ended_by(), served.ended_by()), (None, None), "{seen:?} {served:?}");
            assert_eq!(seen.last().bytes.max(served.last().bytes), BYTES);
            assert!(took < SOON, "{at_client:?} {at_server:?} {asks:?}: {took:?}");
        }
    }
}
