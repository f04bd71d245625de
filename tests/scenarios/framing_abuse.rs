//! Peers with a good certificate and bad intentions: what they may say in the protocol between agents, and what comes
//! of it. No application ever sees anything that is not its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sheath_tests::ca::Leaf;
use sheath_tests::config::spiffe_id;
use sheath_tests::pair::{Pair, Setting, any, client, say, server};
use sheath_tests::probe::Probe;
use sheath_tests::rogue::frames::{
    ACCEPTED, Called, Caller, DATA, FIN, FlowServer, GO_AWAY, OPEN, REFUSED, RESET, data, frame,
    open,
};
use sheath_tests::script::{Connection, Step};
use sheath_tests::status::Status;
use sheath_tests::wait;
use sheath_tests::world::{FAMILIES, Family};

/// A protected port of the server's that is not the one that is called.
const OTHER_PORT: u16 = 9090;

/// How long a client may have to wait for finding out that a session is of no use, on a busy machine.
const SOON: Duration = Duration::from_secs(2);

/// Long enough for bytes that are not to be sent to have been sent.
const A_MOMENT: Duration = Duration::from_millis(300);

fn client_leaf(pair: &Pair) -> Leaf {
    pair.world.ca().issue(&spiffe_id("client"))
}

/// An OPEN that an honest client might send.
fn honest_open(pair: &Pair, family: Family) -> Vec<u8> {
    open(pair.world.a.addresses.at(family, 40_000), pair.target(family))
}

fn fin() -> Vec<u8> {
    frame(FIN, &[])
}

/// Of what an OPEN says of its source, the port is the client's to say. The address is not.
#[test]
fn a_source_address_cannot_be_forged() {
    let pair = Pair::host();
    let leaf = client_leaf(&pair);
    for family in FAMILIES {
        let mut app = pair.serve(family, &[Step::Echo]);
        let mut caller = Caller::dial(&pair.world.a.netns, pair.target(family), &leaf);
        let own = pair.world.a.addresses;
        for (number, forged) in [
            pair.world.b.addresses.at(family, 50_000),
            pair.world.a.extra.at(family, 50_001),
            "127.0.0.1:50002".parse().unwrap(),
            "[::1]:50003".parse().unwrap(),
            "192.0.2.66:22".parse().unwrap(),
        ]
        .into_iter()
        .enumerate()
        {
            let text = format!("flow {number}");
            caller.send(&[open(forged, pair.target(family)), data(&text), fin()].concat());
            let answer = [frame(ACCEPTED, &[]), data(&text), fin()].concat();
            assert_eq!(caller.receive(answer.len()), answer, "{forged}");
            let seen_as = SocketAddr::new(own.of(family), forged.port());
            let served = app.connection();
            assert_eq!((served.accepted, served.peer), (Some(seen_as), Some(seen_as)), "{forged}");
            let source = seen_as.to_string();
            pair.agent_b.wait_for_access("the flow", |line| line.source == source);
        }
    }
}

/// `REFUSED`'s code for what policy does not allow, and `GO_AWAY`'s for an address that is not the server's own.
const NOT_ALLOWED: u8 = 2;
const VIRTUAL: u8 = 5;

/// A session leads to where its connection has gone, whatever an OPEN says: nowhere, if that is another port. By another
/// address it leads there once.
#[test]
fn a_session_leads_nowhere_else() {
    let pair = Pair::new(Setting::Pods);
    let leaf = client_leaf(&pair);
    let mut right = pair.serve(Family::V4, &[Step::Send("the right one".into()), Step::Echo]);
    let wrong = [Step::Send("the wrong one".into()), Step::Echo];
    let mut wrong = [Family::V4, Family::V6]
        .map(|family| Probe::start(&pair.server, &server(any(family, OTHER_PORT), &wrong)));
    let to = pair.target(Family::V4);
    let source = pair.client_addresses.at(Family::V4, 40_000);
    let answer = [frame(ACCEPTED, &[]), data("the right one"), fin()].concat();
    for elsewhere in [
        pair.server_addresses.at(Family::V4, OTHER_PORT),
        pair.server_addresses.at(Family::V6, OTHER_PORT),
        "127.0.0.1:9090".parse().unwrap(),
        pair.world.b.addresses.at(Family::V4, 22),
    ] {
        // As the first flow, and as a later one.
        for earlier in [0, 1] {
            let mut caller = Caller::dial(&pair.client.netns, to, &leaf);
            for _ in 0..earlier {
                caller.send(&[open(source, to), fin()].concat());
                assert_eq!(caller.receive(answer.len()), answer, "{elsewhere}");
                right.accepted();
                assert_eq!(right.connection().local, Some(to), "{elsewhere}");
            }
            caller.send(&[open(source, elsewhere), data("smuggled"), fin()].concat());
            assert_eq!(caller.end().0, frame(REFUSED, &[NOT_ALLOWED]), "{elsewhere}");
            assert_eq!(right.pending(), 0, "{elsewhere}");
        }
    }
    for elsewhere in ["127.0.0.1:8080", "[::1]:8080", "192.0.2.1:8080"] {
        let mut caller = Caller::dial(&pair.client.netns, to, &leaf);
        caller.send(&[open(source, elsewhere.parse().unwrap()), fin()].concat());
        let (received, end) = caller.end();
        let last = frame(GO_AWAY, &[VIRTUAL]);
        assert_eq!((received, end), ([&answer[..], &last].concat(), None), "{elsewhere}");
        assert_eq!(right.connection().local, Some(to), "{elsewhere}");
    }
    assert!(wrong.iter_mut().all(|app| app.pending() == 0));
    let lines = pair.agent_b.access();
    assert!(lines.iter().all(|line| line.destination == to.to_string()), "{lines:#?}");
}

/// What breaks the rules ends the session with an alert, and reaches no application.
#[test]
fn a_client_that_breaks_the_rules_reaches_nobody() {
    let pair = Pair::host();
    let leaf = client_leaf(&pair);
    let mut app = pair.serve(Family::V4, &[Step::Echo]);
    let opened = honest_open(&pair, Family::V4);
    let nobody = [
        ("data before OPEN", data("smuggled")),
        ("FIN before OPEN", fin()),
        ("RESET before OPEN", frame(RESET, &[1])),
        ("ACCEPTED of a client", frame(ACCEPTED, &[])),
        ("REFUSED of a client", frame(REFUSED, &[1])),
        ("GO_AWAY of a client", frame(GO_AWAY, &[1])),
        ("an unknown type", frame(8, b"?")),
        ("type 0", frame(0, &[])),
        ("a short OPEN", frame(OPEN, &opened[4..20])),
        ("a long OPEN", frame(OPEN, &[&opened[4..], b"more"].concat())),
        ("an enormous OPEN, the header alone", vec![OPEN, 0xff, 0xff, 0xff]),
        ("an unspecified source", open("0.0.0.0:1".parse().unwrap(), pair.target(Family::V4))),
        ("a multicast source", open("[ff02::1]:1".parse().unwrap(), pair.target(Family::V4))),
        ("port 0", open("192.0.2.1:0".parse().unwrap(), pair.target(Family::V4))),
    ];
    for (what, bytes) in nobody {
        let mut caller = Caller::dial(&pair.world.a.netns, pair.target(Family::V4), &leaf);
        // What follows is good, and must not be taken up.
        caller.send(&[bytes, opened.clone(), data("smuggled"), fin()].concat());
        let (received, end) = caller.end();
        assert_eq!(received, b"", "{what}");
        assert!(
            end.as_ref().is_some_and(|end| end.contains("UnexpectedMessage")),
            "{what}: {end:?}"
        );
        assert_eq!(app.pending(), 0, "{what}: the application was reached");
    }
    pair.assert_served();
    pair.agent_b.wait_for_status("nothing left of any flow", Status::is_idle);
}

/// Amid a flow, what came before is the application's; nothing after is.
#[test]
fn a_flow_in_which_the_rules_are_broken_is_reset() {
    let pair = Pair::host();
    let leaf = client_leaf(&pair);
    let mut app = pair.serve(Family::V4, &[Step::Receive(6), Step::ReceiveToEnd]);
    let opened = honest_open(&pair, Family::V4);
    for (what, bytes) in [
        ("a second OPEN", opened.clone()),
        ("ACCEPTED", frame(ACCEPTED, &[])),
        ("REFUSED", frame(REFUSED, &[2])),
        ("GO_AWAY", frame(GO_AWAY, &[4])),
        ("an unknown type", frame(9, &[])),
        ("data without data", frame(DATA, &[])),
        ("too much data in a frame", frame(DATA, &[b'x'; 16_381])),
        ("an enormous frame, the header alone", vec![DATA, 0xff, 0xff, 0xff]),
        ("FIN with a payload", frame(FIN, b"x")),
        ("data after FIN", [fin(), data("smuggled")].concat()),
        ("FIN after FIN", [fin(), fin()].concat()),
    ] {
        let mut caller = Caller::dial(&pair.world.a.netns, pair.target(Family::V4), &leaf);
        caller.send(&[opened.clone(), data("before")].concat());
        assert_eq!(caller.receive(4), frame(ACCEPTED, &[]), "{what}");
        // With an application that still listens: it has seen what was in order.
        app.accepted();
        thread::sleep(A_MOMENT);
        caller.send(&[bytes, data("smuggled")].concat());
        let (received, end) = caller.end();
        // The application may have ended its side before.
        assert!(received.is_empty() || received == fin(), "{what}: {received:?}");
        assert!(
            end.as_ref().is_some_and(|end| end.contains("UnexpectedMessage")),
            "{what}: {end:?}"
        );
        let served = app.connection();
        assert_eq!(served.steps[0].text, "before", "{what}: {served:?}");
        let seen: String = served.steps[1..].iter().map(|step| step.text.as_str()).collect();
        assert_eq!(seen, "", "{what}: {served:?}");
        assert_eq!(app.pending(), 0, "{what}: another flow");
    }
    drop(app);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    pair.assert_served();
}

/// Behind its FIN a client waits for the server's. RESET is all that it may say, and is heard; anything else ends the
/// session, also while the application has nothing to say.
#[test]
fn a_client_that_goes_on_behind_its_fin_breaks_the_rules() {
    let pair = Pair::host();
    let leaf = client_leaf(&pair);
    let steps = [Step::ReceiveToEnd, Step::Pause, Step::Send("still there?".into())];
    let opened = honest_open(&pair, Family::V4);
    for (what, bytes, alert) in [
        ("the next OPEN", opened.clone(), true),
        ("the header of the next OPEN", opened[..4].to_vec(), true),
        ("data", data("smuggled"), true),
        ("FIN", fin(), true),
        ("RESET", frame(RESET, &[1]), false),
    ] {
        let mut app = pair.serve(Family::V4, &steps);
        let mut caller = Caller::dial(&pair.world.a.netns, pair.target(Family::V4), &leaf);
        caller.send(&[opened.clone(), data("before"), fin()].concat());
        assert_eq!(caller.receive(4), frame(ACCEPTED, &[]), "{what}");
        app.accepted();
        app.wait_paused();
        caller.send(&bytes);
        let (received, end) = caller.end();
        assert_eq!(received, b"", "{what}");
        let is_told = end.as_ref().is_some_and(|end| end.contains("UnexpectedMessage"));
        assert_eq!(is_told, alert, "{what}: {end:?}");
        pair.agent_b.wait_for_status("nothing left of the flow", Status::is_idle);
        app.go();
        let served = app.connection();
        assert!(matches!(served.ended_by(), Some(libc::EPIPE | libc::ECONNRESET)), "{served:?}");
        assert_eq!(served.steps[0].text, "before", "{what}: {served:?}");
        assert_eq!(app.pending(), 0, "{what}: another flow");
    }
}

/// A server under the rogue's control, where the client's agent expects the workload.
struct Rogue {
    pair: Pair,
    server: FlowServer,
    to: SocketAddr,
}

impl Rogue {
    fn start(serve: impl Fn(usize, &mut Called) + Send + Sync + 'static) -> Self {
        let pair = Pair::host();
        let leaf = pair.world.ca().issue(&spiffe_id("web"));
        // A port that the other node's agent does not serve.
        let to = pair.world.b.addresses.at(Family::V4, OTHER_PORT);
        let server = FlowServer::start(&pair.world.b.netns, to, &leaf, serve);
        Self { pair, server, to }
    }

    /// A flow of the client's, and how long it took.
    fn ask(&self, text: &str) -> (Connection, Duration) {
        let start = Instant::now();
        let seen = self.pair.connect(self.to, &say(text));
        (seen, start.elapsed())
    }

    /// A flow that is served as if nothing were wrong, in a bounded time.
    #[track_caller]
    fn assert_answered(&self, text: &str) {
        let (seen, took) = self.ask(text);
        assert_eq!((seen.ended_by(), &*seen.last().text), (None, text), "{seen:?}");
        assert!(took < SOON, "it took {took:?}");
        self.pair.agent_a.wait_for_status("no flow", Status::is_idle);
    }
}

/// The first session serves a flow, and does as told with what comes next; later sessions are honest. The second flow
/// must be served by the second session, with nothing of what the first one said.
#[track_caller]
fn assert_next_flow_is_served(turn_bad: impl Fn(&mut Called) + Send + Sync + 'static) {
    let rogue = Rogue::start(move |number, session| {
        if number > 0 {
            while session.echo() {}
            return;
        }
        session.echo();
        turn_bad(session);
        session.wait_end();
    });
    rogue.assert_answered("first");
    thread::sleep(A_MOMENT);
    rogue.assert_answered("second");
    assert_eq!(rogue.server.sessions(), 2);
    rogue.assert_answered("third");
    assert_eq!(rogue.server.sessions(), 2, "the honest session is used again");
}

#[test]
fn a_server_that_does_not_answer_is_not_waited_for() {
    assert_next_flow_is_served(|_| {});
}

#[test]
fn a_server_that_says_goodbye_is_left() {
    assert_next_flow_is_served(|session| session.send(&frame(GO_AWAY, &[4])));
    // Only when it is asked.
    assert_next_flow_is_served(|session| {
        session.opened();
        session.send(&frame(GO_AWAY, &[1]));
    });
}

#[test]
fn what_a_server_says_between_flows_is_nobodys() {
    assert_next_flow_is_served(|session| session.send(&data("unasked for")));
    assert_next_flow_is_served(|session| {
        session.send(&[frame(ACCEPTED, &[]), data("too early"), fin()].concat());
    });
    // Half a frame, whose other half would follow the next OPEN.
    assert_next_flow_is_served(|session| {
        session.send(&frame(ACCEPTED, &[])[..2]);
        session.opened();
        session.send(&[&frame(ACCEPTED, &[])[2..], &data("too early")].concat());
    });
}

#[test]
fn data_before_a_flow_is_accepted_is_nobodys() {
    for early in [data("too early"), fin(), frame(RESET, &[1]), frame(99, &[])] {
        assert_next_flow_is_served(move |session| {
            session.opened();
            session.send(&[early.clone(), frame(ACCEPTED, &[]), data("too late"), fin()].concat());
        });
    }
}

/// Whoever says between flows what makes no sense there is told so, whether the session is wanted again meanwhile or not.
#[test]
fn a_server_that_speaks_between_flows_is_sent_an_alert() {
    for is_wanted in [false, true] {
        for (said, alert) in [
            (data("unasked for"), true),
            (frame(ACCEPTED, &[]), true),
            (frame(RESET, &[1])[..2].to_vec(), false),
            // It may have crossed the client's FIN.
            (frame(RESET, &[1]), false),
            (frame(GO_AWAY, &[1]), false),
        ] {
            let ends: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
            let (sent, seen) = (said.clone(), ends.clone());
            let rogue = Rogue::start(move |number, session| {
                session.echo();
                if number > 0 {
                    return session.wait_end();
                }
                session.send(&sent);
                seen.lock().unwrap().push(session.end());
            });
            rogue.assert_answered("first");
            if is_wanted {
                thread::sleep(A_MOMENT);
                rogue.assert_answered("second");
            }
            wait::wait_until("the session's end", wait::GENEROUS, || {
                !ends.lock().unwrap().is_empty()
            });
            let end = ends.lock().unwrap().pop().flatten();
            let is_told = end.as_ref().is_some_and(|end| end.contains("UnexpectedMessage"));
            assert_eq!(is_told, alert, "{said:?}, {is_wanted}: {end:?}");
        }
    }
}

/// An application that has said nothing has lost nothing: its flow is tried again, once.
#[test]
fn go_away_on_a_new_session_is_not_the_applications_loss() {
    for (bad, served) in [(1, true), (usize::MAX, false)] {
        let rogue = Rogue::start(move |number, session| {
            if number >= bad {
                session.opened();
                session.send(&[frame(ACCEPTED, &[]), data("welcome"), fin()].concat());
            } else {
                session.send(&frame(GO_AWAY, &[3]));
            }
            session.wait_end();
        });
        let start = Instant::now();
        let seen = rogue.pair.connect(rogue.to, &[Step::ReceiveToEnd]);
        assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
        let (end, text) = if served { (None, "welcome") } else { (Some(libc::ECONNRESET), "") };
        assert_eq!((seen.ended_by(), &*seen.last().text), (end, text), "{seen:?}");
        assert_eq!(rogue.server.sessions(), 2);
        rogue.pair.agent_a.wait_for_access("the flow", |line| {
            line.outcome == if served { "ok" } else { "reset" }
        });
        assert_eq!(rogue.pair.agent_a.access().len(), 1, "one flow");
    }
}

/// On a new session the application's bytes may have been sent: there the flow ends, and is not tried again.
#[test]
fn a_new_session_that_breaks_the_rules_resets_the_flow() {
    for answer in [
        data("too early"),
        fin(),
        frame(OPEN, &[0; 36]),
        frame(99, &[]),
        frame(GO_AWAY, &[3]),
        frame(REFUSED, &[3]),
        [frame(ACCEPTED, &[]), frame(ACCEPTED, &[])].concat(),
        [frame(ACCEPTED, &[]), frame(GO_AWAY, &[1])].concat(),
        [frame(ACCEPTED, &[]), frame(DATA, &[])].concat(),
    ] {
        let sent = answer.clone();
        let rogue = Rogue::start(move |_, session| {
            session.opened();
            session.send(&sent);
            session.wait_end();
        });
        let (seen, took) = rogue.ask("question");
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{answer:?}: {seen:?}");
        assert_eq!(seen.last().text, "", "{answer:?}: {seen:?}");
        assert!(took < SOON, "{answer:?}: it took {took:?}");
        assert_eq!(rogue.server.sessions(), 1, "{answer:?}");
    }
}

/// A flow is over when both have said so. What a server adds belongs to no flow, and least of all to the next.
#[test]
fn what_follows_the_end_of_a_flow_never_reaches_the_next() {
    let rogue = Rogue::start(move |number, session| {
        if number > 0 {
            while session.echo() {}
            return;
        }
        if session.opened() {
            session.send(&frame(ACCEPTED, &[]));
            if let Some(text) = session.to_fin() {
                let more = [frame(ACCEPTED, &[]), data("for the next"), fin()].concat();
                session.send(&[data(&text), fin(), more].concat());
            }
        }
        session.wait_end();
    });
    // Whether the first ends well depends on how the bytes arrive; it sees nothing that is not its own either way.
    let (seen, _) = rogue.ask("first");
    assert_eq!(seen.last().text, "first", "{seen:?}");
    rogue.assert_answered("second");
    rogue.assert_answered("third");
    assert_eq!(rogue.server.sessions(), 2);
}

/// A client's agent is as patient as configured with a server that takes a flow and then says nothing; others go on.
#[test]
fn a_server_that_stalls_holds_up_its_own_flow_alone() {
    let rogue = Rogue::start(|number, session| match number {
        0 => {
            session.opened();
            session.send(&frame(ACCEPTED, &[]));
            session.wait_end();
        }
        _ => while session.echo() {},
    });
    let waiting = [Step::Send("x".into()), Step::Pause, Step::ReceiveToEnd];
    let mut stalled = Probe::start(&rogue.pair.client, &client(rogue.to, &waiting));
    stalled.wait_paused();
    wait::wait_until("the first session", wait::GENEROUS, || rogue.server.sessions() == 1);
    for text in ["one", "two", "three"] {
        let (seen, took) = rogue.ask(text);
        assert_eq!((seen.ended_by(), &*seen.last().text), (None, text), "{seen:?}");
        assert!(took < SOON, "it took {took:?}");
    }
}
