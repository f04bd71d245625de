//! Relays between applications and sessions over real TCP connections on loopback.

mod against_rustls;
mod duplex;
mod ends;
mod flows;
mod patterns;
mod sessions;
mod turns;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::framing::{Control, Open, data_header};
use crate::record::ContentType;
use crate::sys::sockopt;
use crate::tls::testing::{Raw, narrow_tcp_pair, sessions, tcp_pair, with_raw};

/// For what should take no time at all.
const GENEROUS: Duration = Duration::from_secs(30);
/// What must happen soon, and need not at once.
const SOON: Duration = Duration::from_secs(5);

/// A relay that runs, and the application at its one end.
struct Relay {
    app: TcpStream,
    account: Arc<Account>,
    task: JoinHandle<Ended>,
}

/// A relay that has come to its end.
struct Ended {
    result: Result<(), RelayError>,
    moved: Moved,
    /// `None` after an error.
    wire: Option<RecordStream>,
    /// Of what the peer sends, if the session is framed.
    reader: Option<Reader>,
}

impl Relay {
    async fn start(wire: RecordStream, reader: Option<Reader>, account: &Arc<Account>) -> Self {
        Self::patient(wire, reader, account, Patience::default()).await
    }

    async fn patient(
        wire: RecordStream,
        reader: Option<Reader>,
        account: &Arc<Account>,
        patience: Patience,
    ) -> Self {
        Self::between(tcp_pair().await, wire, reader, account, patience)
    }

    fn between(
        (app, leg): (TcpStream, TcpStream),
        mut wire: RecordStream,
        mut reader: Option<Reader>,
        account: &Arc<Account>,
        patience: Patience,
    ) -> Self {
        sockopt::close_gracefully(&app).unwrap();
        let task = tokio::spawn(async move {
            let mut moved = Moved::default();
            let framing = reader.as_mut().map_or(Framing::Bytes, Framing::Flows);
            let result = run_sealed(&leg, &mut wire, framing, patience, &mut moved).await;
            let wire = result.is_ok().then_some(wire);
            if let Some(wire) = &wire {
                sockopt::close_gracefully(&leg).unwrap();
                if reader.is_none() {
                    sockopt::close_gracefully(wire.tcp()).unwrap();
                }
            }
            Ended { result, moved, wire, reader }
        });
        Self { app, account: account.clone(), task }
    }
}

/// Waits for a relay to end by itself.
async fn ended(task: JoinHandle<Ended>) -> Ended {
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
async fn back_to_back(kind: Kind) -> (Relay, Relay) {
    let (mine, theirs) = (account(), account());
    let (client, server) = sessions(tcp_pair().await, [&mine, &theirs]);
    let (client, server) = begin(kind, client, server);
    (Relay::start(client.0, client.1, &mine).await, Relay::start(server.0, server.1, &theirs).await)
}

type Wire = (RecordStream, Option<Reader>);

/// Begins a flow at both ends of a session.
fn begin(kind: Kind, mut client: RecordStream, mut server: RecordStream) -> (Wire, Wire) {
    if kind == Kind::Bytes {
        return ((client, None), (server, None));
    }
    let mut reader = Reader::of_server();
    open(&mut client, &mut reader);
    put(&mut server, Control::Accepted);
    ((client, Some(reader)), (server, Some(Reader::of_client())))
}

fn open(client: &mut RecordStream, reader: &mut Reader) {
    reader.expect_answer();
    put(client, opening());
}

fn put(wire: &mut RecordStream, control: Control) {
    wire.put(ContentType::ApplicationData, control.encode().as_ref()).unwrap();
}

fn opening() -> Control {
    Control::Open(Open {
        source: "192.0.2.1:40000".parse().unwrap(),
        destination: "192.0.2.2:443".parse().unwrap(),
    })
}

/// A session as a server has it, whose client sends what it is told to.
async fn serving(account: &Arc<Account>) -> (Wire, Raw) {
    let (wire, raw) = with_raw(tcp_pair().await, account);
    ((wire, Some(Reader::of_client())), raw)
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
