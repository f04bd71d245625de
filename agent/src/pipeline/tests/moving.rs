//! Flows that are moved while bytes are under way, again and again: nobody else notices.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::flow::{Direction, Role};
use crate::peer::UidHash;
use crate::pipeline::testing::{Agent, Trusted, WEB, Way, Written};
use crate::policy::PolicyError;
use crate::sessions::{Basis, Revoked, SavedBasis, SessionFacts};
use crate::sys::sockopt;
use crate::wire::bytes::{self, Bytes};
use crate::wire::flows::Flows;
use crate::wire::testing::{narrow_tcp_pair, sessions, tcp_pair};
use crate::wire::{Endpoints, Session, plain};

/// For what should take no time at all.
const GENEROUS: Duration = Duration::from_secs(30);

/// What carries a flow between the agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flows,
    Bytes,
    /// TCP itself, from a workload that prefers protection to a permissive port.
    Plain,
}

const KINDS: [Kind; 3] = [Kind::Flows, Kind::Bytes, Kind::Plain];

/// The agents of two nodes, each with its successor, which carry one flow.
struct Nodes {
    clients: [Agent; 2],
    servers: [Agent; 2],
    /// What all of them were told.
    written: Written,
}

impl Nodes {
    /// With the applications at both ends of the flow.
    async fn new(kind: Kind, narrow: bool) -> (Self, TcpStream, TcpStream) {
        let trusted = Trusted::new();
        let written = match kind {
            Kind::Plain => {
                Written { inbound: "permissive", outbound: "prefer", ..Written::default() }
            }
            _ => Written::default(),
        };
        let agent = || Agent::new(&trusted, written);
        let (clients, servers) = ([agent(), agent()], [agent(), agent()]);
        let wire = if narrow { narrow_tcp_pair().await } else { tcp_pair().await };
        let accounts = [&clients[0], &servers[0]].map(Agent::account);
        let (one, other): (Box<dyn Session>, Box<dyn Session>) = match kind {
            Kind::Plain => {
                let [mine, theirs] = accounts;
                (plain::session(wire.0, mine), plain::session(wire.1, theirs))
            }
            _ => {
                let (one, other) = sessions(wire, [&accounts[0], &accounts[1]]);
                let (mut one, mut other): (Box<dyn Session>, Box<dyn Session>) = match kind {
                    Kind::Flows => (
                        Box::new(Flows::new(one, Role::Client)),
                        Box::new(Flows::new(other, Role::Server)),
                    ),
                    _ => (
                        Box::new(Bytes::new(one, Role::Client, &bytes::AGENTS)),
                        Box::new(Bytes::new(other, Role::Server, &bytes::AGENTS)),
                    ),
                };
                one.begin(endpoints()).unwrap();
                other.accept().unwrap();
                (one, other)
            }
        };
        let (outbound, inbound) = match kind {
            Kind::Plain => {
                // Where nobody is expected.
                let destination = "192.0.2.7:80".parse().unwrap();
                (Basis::Plain { destination, pod: Some(UidHash(7)) }, Basis::Permissive)
            }
            _ => (trusted.outbound(), trusted.inbound(true)),
        };
        let (client, _) = clients[0].begin(Direction::Outbound, one, outbound).await;
        let (server, _) = servers[0].begin(Direction::Inbound, other, inbound).await;
        (Self { clients, servers, written }, client, server)
    }

    /// How often the flow has moved on each side.
    fn moves(&self) -> [u64; 2] {
        [&self.clients, &self.servers]
            .map(|agents| agents.iter().map(|agent| agent.counted("flows_moved")).sum())
    }

    /// The flow has ended on both sides, where it was by then.
    async fn assert_over(&self, outcomes: [&str; 2]) {
        for (agents, outcome) in [&self.clients, &self.servers].into_iter().zip(outcomes) {
            let sum = |name| agents.iter().map(|agent| agent.counted(name)).sum::<u64>();
            eventually(|| sum("flows_closed") == 1).await;
            assert_eq!((sum("flows_opened"), sum("flows_closed")), (1, 1));
            assert_eq!(sum("flows_moved"), sum("flows_taken"));
            let ended: u64 = agents
                .iter()
                .map(|agent| agent.counted_with("flows_closed", "outcome", outcome))
                .sum();
            assert_eq!(ended, 1, "{outcome}");
            for agent in agents {
                eventually(|| agent.account().leased() == 0).await;
            }
        }
    }
}

fn endpoints() -> Endpoints {
    Endpoints {
        source: "192.0.2.1:40000".parse().unwrap(),
        destination: "10.0.0.1:80".parse().unwrap(),
    }
}

async fn eventually(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(GENEROUS, waiting).await.expect("it does not come to that");
}

/// Moves all flows of one agent to another. After that the first keeps what it gets.
async fn move_all(from: &Agent, to: &Agent) -> Arc<Way> {
    let way = Way::to(to);
    let moving = from.pipeline.move_flows(way.clone());
    tokio::time::timeout(GENEROUS, moving).await.expect("flows neither go nor stay");
    from.pipeline.keep_flows();
    way
}

/// Moves a flow to and fro for ever.
async fn keep_moving(agents: &[Agent; 2], pause: Duration) {
    let [one, other] = agents;
    loop {
        move_all(one, other).await;
        tokio::time::sleep(pause).await;
        move_all(other, one).await;
        tokio::time::sleep(pause).await;
    }
}

/// Bytes of which none can be missed or put elsewhere without being noticed.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length as u32).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8 ^ seed).collect()
}

/// Says `says` in pieces, waits for `then`, ends its direction, and returns what it hears.
async fn talk(
    app: TcpStream,
    says: Vec<u8>,
    piece: usize,
    then: impl Future<Output = ()>,
) -> Vec<u8> {
    let (mut from, mut to) = app.into_split();
    let writing = async move {
        for (number, piece) in says.chunks(piece).enumerate() {
            to.write_all(piece).await.unwrap();
            if number % 16 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        then.await;
        to.shutdown().await.unwrap();
        to
    };
    let reading = async move {
        let mut heard = Vec::new();
        from.read_to_end(&mut heard).await.unwrap();
        heard
    };
    tokio::join!(writing, reading).1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn moving_under_load_changes_nothing(
        lengths in (0_usize..3_000_000, 0_usize..3_000_000),
        pieces in (500_usize..40_000, 500_usize..40_000),
        pauses in (0_u64..4, 0_u64..4),
        narrow: bool,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for kind in KINDS {
            runtime.block_on(async {
                let (nodes, client, server) = Nodes::new(kind, narrow).await;
                let (says, answers) = (pattern(lengths.0, 1), pattern(lengths.1, 2));
                // On a busy machine all may be said before anything has moved.
                let moved_twice = async {
                    if lengths.0 > 1_000_000 {
                        eventually(|| nodes.moves().iter().all(|moves| *moves > 1)).await;
                    }
                };
                let talking = async {
                    tokio::join!(
                        talk(client, says.clone(), pieces.0, moved_twice),
                        talk(server, answers.clone(), pieces.1, std::future::ready(())),
                    )
                };
                let moving = async {
                    tokio::join!(
                        keep_moving(&nodes.clients, Duration::from_millis(pauses.0)),
                        keep_moving(&nodes.servers, Duration::from_millis(pauses.1)),
                    )
                };
                let (heard, asked) = tokio::select! {
                    talked = tokio::time::timeout(2 * GENEROUS, talking) => {
                        talked.expect("it stands still")
                    }
                    _ = moving => unreachable!(),
                };
                assert!(heard == answers, "{kind:?}: {} bytes came back", heard.len());
                assert!(asked == says, "{kind:?}: {} bytes arrived", asked.len());
                nodes.assert_over(["ok", "ok"]).await;
            });
        }
    }
}

/// What one side has ended stays ended, and the other side goes on.
#[tokio::test]
async fn a_half_closed_flow_moves() {
    for kind in KINDS {
        let (nodes, mut client, mut server) = Nodes::new(kind, false).await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = Vec::new();
        server.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"question");
        move_all(&nodes.clients[0], &nodes.clients[1]).await;
        move_all(&nodes.servers[0], &nodes.servers[1]).await;
        assert_eq!(nodes.moves(), [1, 1], "{kind:?}");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"answer");
        nodes.assert_over(["ok", "ok"]).await;
    }
}

/// Nothing of the flow is left in the process that it has gone from: otherwise its connections would not be reset now.
#[tokio::test]
async fn a_flow_that_has_moved_is_reset_as_any_other() {
    for kind in KINDS {
        let (nodes, mut client, mut server) = Nodes::new(kind, false).await;
        move_all(&nodes.clients[0], &nodes.clients[1]).await;
        move_all(&nodes.servers[0], &nodes.servers[1]).await;
        client.write_all(b"hello").await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
        sockopt::prepare_leg(&client).unwrap();
        drop(client);
        let mut byte = [0; 1];
        let read =
            tokio::time::timeout(GENEROUS, server.read(&mut byte)).await.expect("it hears nothing");
        let error = read.expect_err("an end in order");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{kind:?}");
        nodes.assert_over(["reset", "reset"]).await;
    }
}

/// The next process judges by its own policy.
#[tokio::test]
async fn a_peer_that_is_not_allowed_any_more_is_cut() {
    let nobody = Written { peer: "spiffe://example.org/other", ..Written::default() };
    for kind in [Kind::Flows, Kind::Bytes] {
        for is_client in [true, false] {
            let (nodes, mut client, mut server) = Nodes::new(kind, false).await;
            client.write_all(b"hello").await.unwrap();
            server.read_exact(&mut [0; 5]).await.unwrap();
            let agents = if is_client { &nodes.clients } else { &nodes.servers };
            agents[1].rewrite(nobody);
            let way = move_all(&agents[0], &agents[1]).await;
            assert_eq!(*way.refusals.lock().unwrap(), Vec::<String>::new());
            for app in [&mut client, &mut server] {
                let read = tokio::time::timeout(GENEROUS, app.read(&mut [0; 1])).await;
                read.expect("the flow goes on").expect_err("an end in order");
            }
            let outcomes = if is_client { ["revoked", "reset"] } else { ["reset", "revoked"] };
            nodes.assert_over(outcomes).await;
        }
    }
    let strict = Written { inbound: "strict", outbound: "require", ..Written::default() };
    for is_client in [true, false] {
        let (nodes, mut client, mut server) = Nodes::new(Kind::Plain, false).await;
        let agents = if is_client { &nodes.clients } else { &nodes.servers };
        agents[1].rewrite(strict);
        move_all(&agents[0], &agents[1]).await;
        for app in [&mut client, &mut server] {
            let read = tokio::time::timeout(GENEROUS, app.read(&mut [0; 1])).await;
            read.expect("the flow goes on").expect_err("an end in order");
        }
        let outcomes = if is_client { ["revoked", "reset"] } else { ["reset", "revoked"] };
        nodes.assert_over(outcomes).await;
    }
}

/// In the clear begins what nobody protects; what has begun goes on, there as here.
#[tokio::test]
async fn a_flow_in_the_clear_goes_on_where_its_endpoint_is_protected_by_then() {
    let (nodes, mut client, mut server) = Nodes::new(Kind::Plain, false).await;
    let destination = endpoints().destination;
    let way = Way::changing(&nodes.clients[1], |saved| {
        let destination = endpoints().destination;
        saved.basis = SavedBasis::Plain { destination, pod: Some(7) };
    });
    let moving = nodes.clients[0].pipeline.move_flows(way);
    tokio::time::timeout(GENEROUS, moving).await.expect("flows neither go nor stay");
    client.write_all(b"hello").await.unwrap();
    server.read_exact(&mut [0; 5]).await.unwrap();
    nodes.clients[1].rewrite(nodes.written);
    server.write_all(b"hello").await.unwrap();
    client.read_exact(&mut [0; 5]).await.unwrap();
    assert_eq!(nodes.moves(), [1, 0]);
    let sessions = &nodes.clients[1].pipeline.published.sessions;
    let basis = Basis::Plain { destination, pod: None };
    let facts = SessionFacts { workload: WEB, basis, stay: CancellationToken::new() };
    let refused = sessions.open(facts, sessions.revision()).unwrap_err();
    assert!(matches!(refused, Revoked::Policy(PolicyError::Protected(_))), "{refused}");
}

/// A flow that has moved is judged by its new process whenever that changes its policy.
#[tokio::test]
async fn a_flow_that_has_moved_is_judged_again() {
    let (nodes, mut client, mut server) = Nodes::new(Kind::Flows, false).await;
    move_all(&nodes.servers[0], &nodes.servers[1]).await;
    client.write_all(b"hello").await.unwrap();
    server.read_exact(&mut [0; 5]).await.unwrap();
    // Nothing has changed for it.
    nodes.servers[1].rewrite(Written::default());
    server.write_all(b"hello").await.unwrap();
    client.read_exact(&mut [0; 5]).await.unwrap();
    nodes.servers[1].rewrite(Written { peer: "spiffe://example.org/other", ..Written::default() });
    let read = tokio::time::timeout(GENEROUS, server.read(&mut [0; 1])).await;
    read.expect("the flow goes on").expect_err("an end in order");
    nodes.assert_over(["reset", "revoked"]).await;
}

/// That it may move takes no memory of a flow that stands still: 984 bytes were enough before it could.
#[tokio::test]
async fn a_flow_that_stands_still_is_small() {
    let trusted = Trusted::new();
    let agent = Agent::new(&trusted, Written::default());
    let (app, wire) = tcp_pair().await;
    let session = plain::session(wire, agent.account());
    let size = agent.size_of_relay(&app, session, trusted.outbound());
    assert!(size <= 984, "{size} bytes");
}

/// One that comes to the relay stage while others move goes at once.
#[tokio::test]
async fn a_flow_that_begins_while_others_move_goes_too() {
    let trusted = Trusted::new();
    let [one, other] = [(); 2].map(|()| Agent::new(&trusted, Written::default()));
    let way = Way::to(&other);
    one.pipeline.move_flows(way).await;
    let (mine, theirs) = (one.account(), other.account());
    let (session, _peer) = sessions(tcp_pair().await, [&mine, &theirs]);
    let session = Box::new(Bytes::new(session, Role::Client, &bytes::AGENTS));
    let (_app, task) = one.begin(Direction::Outbound, session, trusted.outbound()).await;
    task.await.unwrap();
    eventually(|| other.counted("flows_taken") == 1).await;
    assert_eq!(one.counted("flows_moved"), 1);
    assert_eq!((one.pipeline.counters.flows(), other.pipeline.counters.flows()), (0, 1));
}
