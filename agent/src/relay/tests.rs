//! Relays between applications and sessions over real TCP connections on loopback.

mod against_rustls;
mod ends;
mod flows;
mod patterns;
mod pauses;
mod plain;
mod sessions;
mod turns;

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::flow::Role;
use crate::sys::sockopt;
use crate::wire::buffers::Account;
use crate::wire::bytes::{self, Bytes};
use crate::wire::flows::{Control, Flows, data_header};
use crate::wire::record::ContentType;
use crate::wire::records::RecordStream;
use crate::wire::testing::{Raw, narrow_tcp_pair, sessions, tcp_pair, with_raw};
use crate::wire::{Endpoints, GoAwayCode, RefusalCode, ResetCode, Session};

/// For what should take no time at all.
const GENEROUS: Duration = Duration::from_secs(30);
/// What must happen soon, and need not at once.
const SOON: Duration = Duration::from_secs(5);

type BoxedSession = Box<dyn Session>;

/// A flow that is relayed, and the application at its one end.
struct Carried {
    app: TcpStream,
    account: Arc<Account>,
    task: JoinHandle<Over>,
}

/// A relay that has come to its end.
struct Over {
    result: Result<(), RelayError>,
    moved: Transferred,
    /// The session, if it can have another flow.
    wire: Option<BoxedSession>,
}

impl Carried {
    async fn start(wire: BoxedSession, account: &Arc<Account>) -> Self {
        Self::patient(wire, account, IdleTimeouts::default()).await
    }

    async fn patient(wire: BoxedSession, account: &Arc<Account>, timeouts: IdleTimeouts) -> Self {
        Self::between(tcp_pair().await, wire, account, timeouts)
    }

    fn between(
        (app, leg): (TcpStream, TcpStream),
        mut wire: BoxedSession,
        account: &Arc<Account>,
        timeouts: IdleTimeouts,
    ) -> Self {
        sockopt::close_gracefully(&app).unwrap();
        let task = tokio::spawn(async move {
            let mut relay = Relay::new(timeouts);
            let done = relay.run(&leg, &mut *wire, pin!(pending::<()>())).await;
            let moved = relay.transferred();
            match done {
                Ok(_) => {
                    sockopt::close_gracefully(&leg).unwrap();
                    Over { result: Ok(()), moved, wire: wire.finish().unwrap() }
                }
                Err(error) => Over { result: Err(error), moved, wire: None },
            }
        });
        Self { app, account: account.clone(), task }
    }
}

/// Waits for a relay to end by itself.
async fn ended(task: JoinHandle<Over>) -> Over {
    tokio::time::timeout(GENEROUS, task).await.expect("the relay goes on").unwrap()
}

/// How the bytes of a session are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bytes,
    Flows,
}

const KINDS: [Kind; 2] = [Kind::Bytes, Kind::Flows];

/// Two relays back to back, as two agents have them: the client's and the server's.
async fn back_to_back(kind: Kind) -> (Carried, Carried) {
    let (mine, theirs) = (account(), account());
    let (client, server) = sessions(tcp_pair().await, [&mine, &theirs]);
    let (client, server) = begin(kind, client, server);
    (Carried::start(client, &mine).await, Carried::start(server, &theirs).await)
}

/// Begins a flow at both ends of a session.
fn begin(kind: Kind, client: RecordStream, server: RecordStream) -> (BoxedSession, BoxedSession) {
    let mut client: BoxedSession = match kind {
        Kind::Bytes => bytes_of(client),
        Kind::Flows => Box::new(Flows::new(client, Role::Client)),
    };
    let mut server = served(kind, server);
    client.begin(endpoints()).unwrap();
    server.accept().unwrap();
    (client, server)
}

/// A session of one flow.
fn bytes_of(records: RecordStream) -> BoxedSession {
    Box::new(Bytes::new(records, Role::Client, &bytes::AGENTS))
}

/// A session as a server has it.
fn served(kind: Kind, records: RecordStream) -> BoxedSession {
    match kind {
        Kind::Bytes => bytes_of(records),
        Kind::Flows => Box::new(Flows::new(records, Role::Server)),
    }
}

fn endpoints() -> Endpoints {
    Endpoints {
        source: "192.0.2.1:40000".parse().unwrap(),
        destination: "192.0.2.2:443".parse().unwrap(),
    }
}

fn opening() -> Control {
    Control::Open(endpoints())
}

/// A session as a server has it, whose client sends what it is told to.
async fn serving(account: &Arc<Account>) -> (BoxedSession, Raw) {
    let (wire, raw) = with_raw(tcp_pair().await, account);
    (served(Kind::Flows, wire), raw)
}

fn data_frame(payload: &[u8]) -> Vec<u8> {
    [&data_header(payload.len())[..], payload].concat()
}

fn account() -> Arc<Account> {
    Account::new(Arc::default(), usize::MAX)
}

/// Bytes of which none can be missed or put elsewhere without being noticed.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length as u32).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8 ^ seed).collect()
}

/// Waits until a workload holds no buffers.
async fn none_held(account: &Account) {
    let until = tokio::time::Instant::now() + SOON;
    while account.leased() > 0 {
        assert!(tokio::time::Instant::now() < until, "{} bytes are still held", account.leased());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
