//! Flows that another agent does not take stay where they are, and nobody else notices.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::flow::{Direction, Role};
use crate::handover::{FlowResumer, MovingFlow};
use crate::pipeline::FlowHandler;
use crate::pipeline::saved::SavedFlow;
use crate::pipeline::testing::{Agent, Trusted, Way, Written};
use crate::wire::bytes::{self, Bytes};
use crate::wire::flows::Flows;
use crate::wire::record::ContentType;
use crate::wire::saved::Encoded;
use crate::wire::testing::{Raw, sessions, tcp_pair, with_raw};

/// A flow of an agent: the application, and what is at the other end of the wire.
async fn flow(trusted: &Trusted, agent: &Agent) -> (TcpStream, Raw) {
    let account = agent.account();
    let (wire, raw) = with_raw(tcp_pair().await, &account);
    let session = Box::new(Bytes::new(wire, Role::Client, &bytes::AGENTS));
    let (app, _) = agent.begin(Direction::Outbound, session, trusted.outbound()).await;
    (app, raw)
}

/// Bytes go on in both directions.
async fn assert_goes_on(app: &mut TcpStream, raw: &mut Raw) {
    let going_on = async {
        app.write_all(b"out").await.unwrap();
        let (_, content) = raw.receive().await.unwrap().unwrap();
        assert_eq!(content, b"out");
        raw.send(ContentType::ApplicationData, b"in").await;
        let mut heard = [0; 2];
        app.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"in");
    };
    tokio::time::timeout(Duration::from_secs(30), going_on).await.expect("it stands still");
}

#[tokio::test]
async fn what_cannot_go_on_elsewhere_stays_and_is_offered_once() {
    let trusted = Trusted::new();
    let agent = || Agent::new(&trusted, Written::default());
    let nameless = agent();
    nameless.identify(None);
    let gone = agent();
    gone.leave();
    type Change = fn(&mut SavedFlow);
    let unchanged: Change = |_| {};
    let garbage: Change = |saved| saved.relay = Encoded::new(1, &7_u64).unwrap();
    let unknown: Change = |saved| saved.wire.mode = "sheath/9".to_owned();
    let elsewhere: Change = |saved| saved.namespace += 1;
    for (to, change, label, said) in [
        (agent(), garbage, "state", "damaged"),
        (agent(), unknown, "state", "sheath/9"),
        (agent(), elsewhere, "connection", "another network namespace"),
        (
            Agent::new(&trusted, Written { name: "db", ..Written::default() }),
            unchanged,
            "workload",
            "`web`",
        ),
        (nameless, unchanged, "identity", "no identity"),
        (gone, unchanged, "namespace", "not served"),
        (
            Agent::with_limit(&trusted, Written::default(), Some(0)),
            unchanged,
            "limit",
            "0 connections",
        ),
    ] {
        let from = agent();
        let (mut app, mut raw) = flow(&trusted, &from).await;
        assert_goes_on(&mut app, &mut raw).await;
        let way = Way::changing(&to, change);
        from.pipeline.move_flows(way.clone()).await;
        assert_goes_on(&mut app, &mut raw).await;
        let refusals = std::mem::take(&mut *way.refusals.lock().unwrap());
        assert!(refusals[0].contains(said), "{refusals:?}");
        assert_eq!(way.offers.load(Relaxed), 1, "offered again");
        assert_eq!(to.counted_with("flows_not_taken", "reason", label), 1, "{label}");
        assert_eq!(from.counted_with("flows_stayed", "reason", "refused"), 1);
        assert_eq!((from.counted("flows_moved"), to.counted("flows_taken")), (0, 0));
        assert_eq!((from.pipeline.counters.flows(), to.pipeline.counters.flows()), (1, 0));
        // Another successor may take it.
        from.pipeline.keep_flows();
        let next = agent();
        from.pipeline.move_flows(Way::to(&next)).await;
        assert_goes_on(&mut app, &mut raw).await;
        // What goes on there is counted there.
        assert_eq!((from.pipeline.counters.flows(), next.pipeline.counters.flows()), (0, 1));
    }
}

/// While a flow was offered, nobody told it of changes: it looks itself when it stays.
#[tokio::test]
async fn a_flow_that_stays_is_judged_by_what_has_changed_meanwhile() {
    let trusted = Trusted::new();
    let [from, to] = [(); 2].map(|()| Agent::new(&trusted, Written::default()));
    to.leave();
    let (mut app, _raw) = flow(&trusted, &from).await;
    // In force, and nobody has been judged by it yet.
    from.rewrite_silently(Written { peer: "spiffe://example.org/other", ..Written::default() });
    from.pipeline.move_flows(Way::to(&to)).await;
    let read = tokio::time::timeout(Duration::from_secs(30), app.read(&mut [0; 1])).await;
    read.expect("the flow goes on").expect_err("an end in order");
    assert_eq!(from.counted_with("flows_closed", "outcome", "revoked"), 1);
}

/// The last word on a flow is the successor's: one that it does not go on with is not touched by it.
#[tokio::test]
async fn a_flow_that_was_restored_and_let_go_is_untouched() {
    let trusted = Trusted::new();
    let [from, to] = [(); 2].map(|()| Agent::new(&trusted, Written::default()));
    let (mut app, mut raw) = flow(&trusted, &from).await;
    let way = Way::dropping(&to);
    from.pipeline.move_flows(way.clone()).await;
    assert_eq!(way.offers.load(Relaxed), 1);
    assert_goes_on(&mut app, &mut raw).await;
    assert_eq!(to.pipeline.counters.flows(), 0);
    assert_eq!(to.account().leased(), 0);
}

/// Descriptors that are none of connected TCP sockets are refused, whatever the state says.
#[tokio::test]
async fn only_connections_are_taken_for_legs() {
    let trusted = Trusted::new();
    let [from, to] = [(); 2].map(|()| Agent::new(&trusted, Written::default()));
    let (_app, _raw) = flow(&trusted, &from).await;
    let way = Way::keeping(&to);
    from.pipeline.move_flows(way.clone()).await;
    let state = way.kept.lock().unwrap().take().unwrap();
    let (connected, _peer) = tcp_pair().await;
    let connected: OwnedFd = connected.into_std().unwrap().into();
    let connected = || connected.try_clone().unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.connect(datagrams.local_addr().unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = std::os::unix::net::UnixStream::pair().unwrap().0;
    let file = std::fs::File::open("/dev/null").unwrap();
    let wrong: [OwnedFd; 4] = [datagrams.into(), listener.into(), unix.into(), file.into()];
    let handler = FlowHandler(to.pipeline.clone());
    for wrong in wrong {
        for is_app in [true, false] {
            let (one, other) = (wrong.try_clone().unwrap(), connected());
            let (app, wire) = if is_app { (one, other) } else { (other, one) };
            let flow = MovingFlow { state: state.clone(), app, wire };
            let why = handler.restore(flow).err().expect("it is taken for a connection");
            let leg = if is_app { "application" } else { "other node" };
            assert_eq!(why, format!("the connection to the {leg} is none of TCP's, or is over"));
        }
    }
    assert_eq!(to.counted_with("flows_not_taken", "reason", "connection"), 8);
    let flow = MovingFlow { state, app: connected(), wire: connected() };
    assert!(handler.restore(flow).is_ok());
}

/// Between flows there is nothing that could move: the session ends, and the client opens another.
#[tokio::test]
async fn kept_sessions_end_when_flows_move() {
    let trusted = Trusted::new();
    let agent = Agent::new(&trusted, Written::default());
    let account = agent.account();
    let (session, peer) = sessions(tcp_pair().await, [&account, &account]);
    agent.keep(&trusted, Box::new(Flows::new(session, Role::Client)));
    assert_eq!(agent.kept(), 1);
    let to = Agent::new(&trusted, Written::default());
    agent.pipeline.move_flows(Way::to(&to)).await;
    let mut byte = [0; 1];
    let end = async {
        peer.tcp().readable().await.unwrap();
        peer.tcp().try_read(&mut byte)
    };
    // close_notify, and then the end.
    assert!(tokio::time::timeout(Duration::from_secs(30), end).await.unwrap().is_ok());
    // Nor is one kept as long as flows move.
    let (session, _peer) = sessions(tcp_pair().await, [&account, &account]);
    agent.keep(&trusted, Box::new(Flows::new(session, Role::Client)));
    assert_eq!(agent.kept(), 0);
}
