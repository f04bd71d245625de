//! Promise 6: TCP is still TCP.

use sheath_tests::config::spiffe_id;
use sheath_tests::pair::{PORT, Pair, Setting, any, client, say, send};
use sheath_tests::probe::{self, Probe};
use sheath_tests::rogue::{Dial, End, Face, RogueServer};
use sheath_tests::script::{Job, ListenerOptions, Step};
use sheath_tests::wait::{GENEROUS, wait_until};
use sheath_tests::world::{FAMILIES, Family};

const ROGUE_PORT: u16 = 9443;

#[test]
fn the_client_ends_first_and_still_receives() {
    let pair = Pair::host();
    for family in FAMILIES {
        let mut server = pair.serve(family, &[Step::ReceiveToEnd, send("answer")]);
        let seen = pair.connect(pair.target(family), &say("question"));
        assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, "answer"), "{seen:?}");
        assert_eq!(server.connection().steps[0].text, "question");
    }
}

#[test]
fn the_server_ends_first_and_still_receives() {
    let pair = Pair::host();
    for family in FAMILIES {
        let mut server =
            pair.serve(family, &[send("answer"), Step::EndSending, Step::ReceiveToEnd]);
        let seen = pair.connect(pair.target(family), &[Step::ReceiveToEnd, send("question")]);
        assert_eq!((seen.ended_by(), seen.steps[0].text.as_str()), (None, "answer"), "{seen:?}");
        let served = server.connection();
        assert_eq!((served.ended_by(), served.last().text.as_str()), (None, "question"));
    }
}

/// Connections that a server has ended first stay in TIME_WAIT; with SO_REUSEADDR, as servers have it,
/// they do not keep it from being started again.
#[test]
fn a_server_can_be_restarted_after_it_has_ended_connections() {
    let pair = Pair::host();
    for family in FAMILIES {
        for _ in 0..2 {
            let mut server =
                pair.serve(family, &[send("bye"), Step::EndSending, Step::ReceiveToEnd]);
            let seen = pair.connect(pair.target(family), &[Step::ReceiveToEnd]);
            assert_eq!(seen.last().text, "bye", "{seen:?}");
            assert_eq!(server.connection().ended_by(), None);
        }
    }
}

#[test]
fn the_server_speaks_first() {
    let pair = Pair::new(Setting::Pods);
    for family in FAMILIES {
        let _server = pair.serve(family, &[send("220 ready"), Step::Receive(4), send("221 bye")]);
        let steps = [Step::Receive(9), send("QUIT"), Step::ReceiveToEnd];
        let seen = pair.connect(pair.target(family), &steps);
        assert_eq!(seen.ended_by(), None, "{seen:?}");
        assert_eq!(seen.steps[0].text, "220 ready");
        assert_eq!(seen.last().text, "221 bye");
    }
}

/// Nobody listens: neither behind the server's agent, nor on a port no agent cares for.
#[test]
fn a_refused_upstream_is_a_reset() {
    let pair = Pair::host();
    for family in FAMILIES {
        for port in [PORT, ROGUE_PORT] {
            let to = pair.world.b.addresses.at(family, port);
            let seen = pair.connect(to, &say("anybody there?"));
            assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{to}: {seen:?}");
            let line = pair
                .agent_a
                .wait_for_access("the refused flow", |line| line.destination == to.to_string());
            assert_ne!(line.outcome, "ok", "{line:?}");
        }
    }
}

/// Nobody has the address: no answer at all, or word from the network that there will be none.
#[test]
fn an_unreachable_upstream_is_a_reset() {
    let pair = Pair::with(Setting::Host, |a, _| a.timeouts.connect = "2s");
    for to in ["10.0.2.77:8080", "[fd00::2:77]:8080"] {
        let seen = pair.connect(to.parse().unwrap(), &say("anybody there?"));
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{to}: {seen:?}");
        let line = pair.agent_a.wait_for_access("the failure", |line| line.destination == to);
        assert_ne!(line.outcome, "ok", "{line:?}");
        assert!(!line.reason.is_empty(), "{line:?}");
    }
}

#[test]
fn a_reset_by_the_server_is_a_reset_to_the_client() {
    let pair = Pair::host();
    for family in FAMILIES {
        let _server = pair.serve(family, &[Step::Receive(8), Step::Reset]);
        let seen = pair.connect(pair.target(family), &[send("question"), Step::ReceiveToEnd]);
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
    }
}

#[test]
fn a_reset_by_the_client_is_a_reset_to_the_server() {
    let pair = Pair::host();
    for family in FAMILIES {
        let mut server = pair.serve(family, &[send("hello"), Step::ReceiveToEnd]);
        let seen = pair.connect(pair.target(family), &[Step::Receive(5), Step::Reset]);
        assert_eq!(seen.ended_by(), None);
        let served = server.connection();
        assert_eq!(served.ended_by(), Some(libc::ECONNRESET), "{served:?}");
    }
}

/// Whoever has ended its own direction may still die: the other learns of it at once, although it has nothing to read any
/// more and may have nothing to say.
#[test]
fn a_reset_behind_the_end_of_a_direction_is_a_reset_to_the_other() {
    let pair = Pair::host();
    for family in FAMILIES {
        let ends = [send("all"), Step::EndSending, Step::Pause, Step::Reset];
        // Of two words, the first would find out what the second is told.
        let listens = [Step::ReceiveToEnd, Step::Pause, send("still there?")];
        for of_client in [true, false] {
            let (asks, serves) =
                if of_client { (&ends[..], &listens[..]) } else { (&listens[..], &ends[..]) };
            let mut served = pair.serve(family, serves);
            let mut asking = Probe::start(&pair.client, &client(pair.target(family), asks));
            asking.wait_paused();
            served.wait_paused();
            let before = (pair.agent_a.access().len(), pair.agent_b.access().len());
            let (dies, lives) =
                if of_client { (&mut asking, &mut served) } else { (&mut served, &mut asking) };
            dies.go();
            wait_until("the end of the flow", GENEROUS, || {
                pair.agent_a.access().len() > before.0 && pair.agent_b.access().len() > before.1
            });
            lives.go();
            let seen = lives.connection();
            assert!(matches!(seen.ended_by(), Some(libc::EPIPE | libc::ECONNRESET)), "{seen:?}");
            assert_eq!(seen.steps[0].text, "all");
            for agent in [&pair.agent_a, &pair.agent_b] {
                let line = agent.access().pop().expect("the flow");
                assert_eq!(line.outcome, "reset", "{line:?}");
            }
        }
    }
}

/// TLS that ends without close_notify may have been cut by anyone on the way.
#[test]
fn a_truncated_answer_is_a_reset_to_the_client() {
    let pair = Pair::host();
    let leaf = pair.world.ca().issue(&spiffe_id("web"));
    let listen = pair.world.b.addresses.at(Family::V4, ROGUE_PORT);
    // A server that ends properly here waits for the client to end first.
    let clean = [Step::Receive(11), Step::EndSending, Step::ReceiveToEnd];
    let cut = [Step::Receive(11), Step::ReceiveToEnd];
    for (end, steps, expected) in
        [(End::Truncate, &cut[..], Some(libc::ECONNRESET)), (End::CloseNotify, &clean, None)]
    {
        let face = Face::Tls(leaf.clone());
        let _server = RogueServer::start(&pair.world.b.netns, listen, face, "half an ans", end);
        let seen = pair.connect(listen, steps);
        assert_eq!(seen.ended_by(), expected, "{end:?}: {seen:?}");
        assert_eq!(seen.steps[0].text, "half an ans");
    }
}

#[test]
fn a_truncated_request_is_a_reset_to_the_server() {
    let pair = Pair::host();
    let leaf = pair.world.ca().issue(&spiffe_id("client"));
    let mut server = pair.serve(Family::V4, &[Step::Receive(11), Step::ReceiveToEnd]);
    for (end, expected) in [(End::Truncate, Some(libc::ECONNRESET)), (End::CloseNotify, None)] {
        let to = pair.target(Family::V4);
        let netns = &pair.world.a.netns;
        Dial { netns, to, leaf: Some(&leaf), alpn: &[], send: "half a ques", end }.run();
        let served = server.connection();
        assert_eq!(served.ended_by(), expected, "{end:?}: {served:?}");
        assert_eq!(served.steps[0].text, "half a ques");
    }
}

/// A reader that does not read stops the writer, through both agents, with bounded memory.
#[test]
fn a_slow_reader_holds_the_writer_back() {
    const AT_MOST: u64 = 256 * 1024 * 1024;
    const BUFFERS: u64 = 96 * 1024 * 1024;
    let pair = Pair::host();
    let job = Job::Server {
        listen: any(Family::V4, PORT),
        socket: ListenerOptions { small_buffer: true, ..ListenerOptions::default() },
        steps: vec![Step::Pause, Step::ReceiveToEnd],
    };
    let mut server = Probe::start(&pair.server, &job);
    let before = (pair.agent_a.resident_bytes(), pair.agent_b.resident_bytes());
    let steps =
        [Step::Fill { at_most: AT_MOST }, Step::Pause, Step::EndSending, Step::ReceiveToEnd];
    let job = client(pair.target(Family::V4), &steps);
    let mut writer = Probe::start(&pair.client, &job);
    server.wait_paused();
    writer.wait_paused();
    for (agent, before) in [(&pair.agent_a, before.0), (&pair.agent_b, before.1)] {
        let now = agent.resident_bytes();
        assert!(now < before + BUFFERS, "{before} bytes of memory before, {now} now");
    }
    server.go();
    writer.go();
    let served = server.connection();
    let seen = writer.connection();
    assert_eq!(seen.ended_by(), None, "{seen:?}");
    assert!(seen.steps[0].bytes < BUFFERS, "{} bytes without a reader", seen.steps[0].bytes);
    assert_eq!((served.ended_by(), served.last().bytes), (None, seen.steps[0].bytes));
}

/// Urgent data may arrive in line or not at all, but it hangs nothing and loses nothing else.
#[test]
fn urgent_data_does_not_hang_a_flow() {
    let pair = Pair::host();
    for family in FAMILIES {
        let mut server = pair.serve(family, &[Step::ReceiveToEnd, send("done")]);
        let steps = [
            send("before"),
            Step::Urgent(b'!'),
            send("after"),
            Step::EndSending,
            Step::ReceiveToEnd,
        ];
        let seen = pair.connect(pair.target(family), &steps);
        assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, "done"), "{seen:?}");
        let text = server.connection().steps[0].text.replace('!', "");
        assert_eq!(text, "beforeafter");
    }
}

/// Nor does it hold back what comes behind it, whoever reads it: our own record layer, or what copies the bytes that pass a
/// permissive port.
#[test]
fn what_is_behind_urgent_data_does_not_wait_for_more() {
    let pair = Pair::with(Setting::Host, |_, b| {
        b.workloads[0].inbound.as_mut().expect("an inbound mode").mode = "permissive";
    });
    let stranger = pair.world.a.host("stranger");
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        for place in [&pair.client, &stranger] {
            let steps = [
                send("before"),
                Step::Urgent(b'!'),
                send("behind"),
                Step::Receive(13),
                Step::EndSending,
                Step::ReceiveToEnd,
            ];
            let seen = probe::run(place, &client(pair.target(family), &steps));
            assert_eq!((seen.ended_by(), &*seen.steps[3].text), (None, "before!behind"));
        }
    }
}

/// The application's own keepalive probes are answered on its node; an idle flow outlives many of them.
#[test]
fn keepalive_settings_do_not_hang_or_end_a_flow() {
    let pair = Pair::host();
    for family in FAMILIES {
        let mut server = pair.serve(family, &[Step::ReceiveToEnd, send("done")]);
        let steps = [
            send("before"),
            Step::IdleWithKeepalive(5),
            send("after"),
            Step::EndSending,
            Step::ReceiveToEnd,
        ];
        let seen = pair.connect(pair.target(family), &steps);
        assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, "done"), "{seen:?}");
        assert_eq!(server.connection().steps[0].text, "beforeafter");
    }
}
