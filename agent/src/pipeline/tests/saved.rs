//! The state of a flow, as it is written and read.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::flow::{Direction, FlowIds, FlowRecord, Negotiated, PeerId, Protection, Reached, Role};
use crate::pipeline::saved::{LONGEST, SavedFlow, SavedRecord};
use crate::pipeline::testing::{Agent, Trusted, WEB_ID, Way, Written};
use crate::relay::{IdleTimeouts, Relay};
use crate::sessions::SavedBasis;
use crate::wire::flows::Flows;
use crate::wire::saved::NotRestored;
use crate::wire::testing::{sessions, tcp_pair};
use crate::wire::{Endpoints, Session};

/// The state of a flow that is under way.
async fn state() -> Vec<u8> {
    let trusted = Trusted::new();
    let agent = Agent::new(&trusted, Written::default());
    let account = agent.account();
    let (one, other) = sessions(tcp_pair().await, [&account, &account]);
    let mut client: Box<dyn Session> = Box::new(Flows::new(one, Role::Client));
    let mut server: Box<dyn Session> = Box::new(Flows::new(other, Role::Server));
    let source = "192.0.2.1:40000".parse().unwrap();
    client.begin(Endpoints { source, destination: "10.0.0.1:80".parse().unwrap() }).unwrap();
    server.accept().unwrap();
    let (mut app, _) = agent.begin(Direction::Outbound, client, trusted.outbound()).await;
    let (mut served, _) = agent.begin(Direction::Inbound, server, trusted.inbound(true)).await;
    app.write_all(b"hello").await.unwrap();
    served.read_exact(&mut [0; 5]).await.unwrap();
    let way = Way::keeping(&agent);
    agent.pipeline.move_flows(way.clone()).await;
    let state = way.kept.lock().unwrap().take().unwrap();
    state.to_vec()
}

fn refused(state: &[u8]) -> NotRestored {
    SavedFlow::decode(state).err().expect("it is read")
}

#[tokio::test]
async fn what_is_not_whole_or_of_another_version_is_refused() {
    let state = state().await;
    assert!(SavedFlow::decode(&state).is_ok());
    for length in 0..state.len() {
        let why = refused(&state[..length]);
        assert!(matches!(why, NotRestored::Decoding), "{length}: {why}");
    }
    let longer = [&state[..], &[0]].concat();
    assert!(matches!(refused(&longer), NotRestored::Decoding));
    let later = [&[0, 2], &state[2..]].concat();
    assert!(matches!(refused(&later), NotRestored::Version(2)));
    let endless = vec![0; LONGEST + 1];
    assert!(matches!(refused(&endless), NotRestored::Contradiction(_)));
}

/// Whatever has become of a state, it is refused, or it is the state of a flow.
#[tokio::test]
async fn a_damaged_state_is_one_or_none() {
    let state = state().await;
    for at in 0..state.len() {
        for flip in [1, 0x7f, 0x80, 0xff] {
            let mut damaged = state.clone();
            damaged[at] ^= flip;
            if let Ok(flow) = SavedFlow::decode(&damaged) {
                let _ = flow.record.restore();
            }
        }
    }
}

/// Whoever changes the format has to make the corpus anew: the fuzzer would not get far from what is refused at once.
#[test]
fn what_the_fuzzer_begins_with_are_states() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/flow_state");
    let files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap()).collect();
    assert!(files.len() >= 10);
    for file in files {
        let state = std::fs::read(file.path()).unwrap();
        let flow = SavedFlow::decode(&state);
        let flow = flow.unwrap_or_else(|why| panic!("{}: {why}", file.path().display()));
        assert!(*flow.encode().unwrap() == state, "{}", file.path().display());
        assert!(Relay::restore(&flow.relay, IdleTimeouts::default()).is_ok());
    }
}

/// Of a flow to an endpoint that nobody protects.
fn nobodys() -> SavedBasis {
    SavedBasis::Plain { destination: "10.0.0.1:80".parse().unwrap(), pod: None }
}

/// A flow is what its session is: nobody can have a protected one without a peer, or in the clear.
#[tokio::test]
async fn contradictions_are_refused() {
    let state = state().await;
    type Change = fn(&mut SavedFlow);
    let changes: [Change; 6] = [
        |flow| flow.record.protection = Protection::None,
        |flow| flow.record.protection = Protection::Plaintext,
        |flow| flow.wire.mode = "plain".to_owned(),
        |flow| flow.basis = nobodys(),
        |flow| flow.basis = SavedBasis::Permissive,
        |flow| {
            flow.record.direction = match flow.record.direction {
                Direction::Outbound => Direction::Inbound,
                Direction::Inbound => Direction::Outbound,
            }
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut flow = SavedFlow::decode(&state).unwrap();
        change(&mut flow);
        let why = refused(&flow.encode().unwrap());
        assert!(matches!(why, NotRestored::Contradiction(_)), "{number}: {why}");
    }
    // All of it at once is a flow of another kind.
    let mut flow = SavedFlow::decode(&state).unwrap();
    flow.wire.mode = "plain".to_owned();
    flow.record.protection = Protection::Plaintext;
    flow.record.direction = Direction::Outbound;
    flow.basis = nobodys();
    assert!(SavedFlow::decode(&flow.encode().unwrap()).is_ok());
    // Whom an application is called by, it must be told.
    flow.record.direction = Direction::Inbound;
    flow.basis = SavedBasis::Permissive;
    let nameless = FlowRecord { source: None, ..record(Direction::Inbound) };
    flow.record = SavedRecord::of(&nameless);
    assert!(matches!(refused(&flow.encode().unwrap()), NotRestored::Contradiction(_)));
}

fn record(direction: Direction) -> FlowRecord {
    let [source, destination] = ["192.0.2.1:4000", "10.0.0.1:80"].map(|at| at.parse().unwrap());
    let mut record = FlowRecord::new(FlowIds::new(9).next(), direction, source, destination);
    record.protection = Protection::Plaintext;
    record
}

proptest! {
    #[test]
    fn the_log_says_the_same_of_a_flow_that_has_moved(
        is_inbound: bool,
        lasted in 0_u64..100_000,
        reached: bool,
        is_reused: bool,
        peer in prop_oneof![
            Just(None),
            Just(Some(PeerId::Spiffe(WEB_ID.parse().unwrap()))),
            Just(Some(PeerId::Dns("billing.example.com".into()))),
        ],
        [version, suite, group] in prop_oneof![
            Just(["TLSv1.3", "TLS13_AES_128_GCM_SHA256", "X25519MLKEM768"]),
            Just(["TLSv1.3", "TLS13_CHACHA20_POLY1305_SHA256", "secp256r1"]),
            Just(["", "", ""]),
        ],
    ) {
        let direction = if is_inbound { Direction::Inbound } else { Direction::Outbound };
        let mut record = record(direction);
        record.started = record.started.checked_sub(Duration::from_millis(lasted)).unwrap();
        record.workload = "web".to_owned();
        record.local_id = Some(PeerId::Spiffe(WEB_ID.parse().unwrap()));
        record.peer_id = peer;
        record.reached = reached.then(|| Reached {
            service: "shop/carts".to_owned(),
            endpoint: "10.0.0.9:8080".parse().unwrap(),
        });
        record.negotiated = Negotiated { version, suite, group };
        record.is_reused = is_reused;
        let bytes = postcard::to_allocvec(&SavedRecord::of(&record)).unwrap();
        let saved: SavedRecord = postcard::from_bytes(&bytes).unwrap();
        let restored = saved.restore().unwrap();
        let began = restored.started.max(record.started) - restored.started.min(record.started);
        prop_assert!(began < Duration::from_secs(1), "{began:?}");
        let same = FlowRecord { started: record.started, ..restored };
        prop_assert_eq!(format!("{same:?}"), format!("{record:?}"));
        prop_assert_eq!(same.workload, "web");
    }
}
