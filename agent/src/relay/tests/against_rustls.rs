//! The other end is rustls, on a thread of its own: what our record layer says is what a TLS library understands, and
//! the other way round.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::ops::DerefMut;
use std::thread;

use proptest::prelude::*;
use rustls::{ClientConnection, ConnectionCommon, ServerConnection, SideData, StreamOwned};

use super::*;
use crate::limits::Quota;
use crate::peer::Target;
use crate::tls;
use crate::tls::testing::{configs_with_suite, ids, quota, with_server_blocking};
use crate::trust::testing::Ca;
use crate::wire::record::{Alert, RecordError};
use crate::wire::testing::limit_keys;

const WEB: &str = "spiffe://example.org/web";
const CLIENT: &str = "spiffe://example.org/client";

/// Which end is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    Client,
    Server,
}

/// How the two ends speak TLS.
#[derive(Clone, Copy, Debug)]
struct Setting {
    ours: Ours,
    /// Which of our cipher suites.
    suite: usize,
    /// The longest record of rustls's, with its header.
    fragment: Option<usize>,
    /// rustls writes and reads no more than this at once.
    segment: usize,
    /// Tickets that rustls sends as a server.
    tickets: usize,
}

const PLAIN: Setting =
    Setting { ours: Ours::Client, suite: 0, fragment: None, segment: usize::MAX, tickets: 0 };

/// A TCP connection that moves a few bytes at a time.
struct Dribble {
    tcp: std::net::TcpStream,
    most: usize,
}

impl Read for Dribble {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let most = room.len().min(self.most);
        self.tcp.read(&mut room[..most])
    }
}

impl Write for Dribble {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.write(&bytes[..bytes.len().min(self.most)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// rustls's end of a session.
trait Peer: Read + Write + Send {
    fn shake_hands(&mut self);
    fn refresh(&mut self);
    fn close_notify(&mut self);
    fn tcp(&self) -> &std::net::TcpStream;
}

impl<C, D> Peer for StreamOwned<C, Dribble>
where
    C: DerefMut<Target = ConnectionCommon<D>> + Send,
    D: SideData,
{
    fn shake_hands(&mut self) {
        while self.conn.is_handshaking() {
            self.conn.complete_io(&mut self.sock).unwrap();
        }
    }

    fn refresh(&mut self) {
        self.conn.refresh_traffic_keys().unwrap();
    }

    fn close_notify(&mut self) {
        self.conn.send_close_notify();
        self.flush().unwrap();
    }

    fn tcp(&self) -> &std::net::TcpStream {
        &self.sock.tcp
    }
}

/// Our end of a session with rustls, which does `talk` on its thread.
async fn session<T: Send + 'static>(
    setting: Setting,
    quota: &Quota,
    talk: impl FnOnce(Box<dyn Peer>) -> T + Send + 'static,
) -> (RecordStream, thread::JoinHandle<T>) {
    let Setting { ours, suite, fragment, segment, tickets } = setting;
    let ca = Ca::new("example.org");
    let web = configs_with_suite(&ca, WEB, &[CLIENT], suite);
    let client = configs_with_suite(&ca, CLIENT, &[], suite);
    let over = move |tcp: std::net::TcpStream| {
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(GENEROUS)).unwrap();
        Dribble { tcp, most: segment }
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (session, thread) = match ours {
        Ours::Client => {
            let mut config = web.server_config();
            config.max_fragment_size = fragment;
            config.send_tls13_tickets = tickets;
            config.session_storage = rustls::server::ServerSessionMemoryCache::new(16);
            let thread = thread::spawn(move || {
                let connection = ServerConnection::new(Arc::new(config)).unwrap();
                let tcp = over(listener.accept().unwrap().0);
                talk(Box::new(StreamOwned::new(connection, tcp)))
            });
            let wire = TcpStream::connect(address).await.unwrap();
            sockopt::prepare_leg(&wire).unwrap();
            let target = Target::Agent(ids(&[WEB]));
            (tls::connect(wire, &client, &target, GENEROUS, quota).await, thread)
        }
        Ours::Server => {
            let mut config = client.client_config();
            config.max_fragment_size = fragment;
            let judge = client.judge(ids(&[WEB]));
            let thread = thread::spawn(move || {
                with_server_blocking(judge, || {
                    let name = address.ip().into();
                    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
                    let tcp = over(std::net::TcpStream::connect(address).unwrap());
                    talk(Box::new(StreamOwned::new(connection, tcp)))
                })
            });
            let wire = listener.accept().unwrap().0;
            wire.set_nonblocking(true).unwrap();
            let wire = TcpStream::from_std(wire).unwrap();
            sockopt::prepare_leg(&wire).unwrap();
            (tls::accept(wire, &web, GENEROUS, quota).await, thread)
        }
    };
    (session.unwrap().session.into_records(), thread)
}

/// What is said in one round: by rustls, and then by our application.
#[derive(Clone, Copy, Debug)]
struct Round {
    theirs: usize,
    ours: usize,
    /// rustls changes its keys before, and asks for ours.
    refresh: bool,
}

/// Plays rounds at rustls's end.
fn play(peer: &mut dyn Peer, rounds: &[Round]) {
    peer.shake_hands();
    for round in rounds {
        if round.refresh {
            peer.refresh();
        }
        peer.write_all(&pattern(round.theirs, 1)).unwrap();
        peer.flush().unwrap();
        let mut heard = vec![0; round.ours];
        peer.read_exact(&mut heard).unwrap();
        assert!(heard == pattern(round.ours, 2));
    }
}

/// Plays rounds at our application's end.
async fn play_ours(app: &mut TcpStream, rounds: &[Round]) {
    for round in rounds {
        let mut heard = vec![0; round.theirs];
        app.read_exact(&mut heard).await.unwrap();
        assert!(heard == pattern(round.theirs, 1));
        app.write_all(&pattern(round.ours, 2)).await.unwrap();
    }
}

/// A conversation that ends in order, by rustls first or by us.
async fn converse(setting: Setting, rounds: Vec<Round>, rustls_ends: bool, limit: Option<u64>) {
    let quota = quota(usize::MAX);
    let account = &quota.buffers;
    let script = rounds.clone();
    let (wire, thread) = session(setting, &quota, move |mut peer| {
        play(&mut *peer, &script);
        let mut rest = Vec::new();
        if rustls_ends {
            peer.close_notify();
            peer.tcp().shutdown(Shutdown::Write).unwrap();
        }
        // An error unless there is a close_notify.
        peer.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        if !rustls_ends {
            peer.close_notify();
        }
    })
    .await;
    let wire = match limit {
        Some(records) => limit_keys(wire, records),
        None => wire,
    };
    let mut relay = Carried::start(bytes_of(wire), account).await;
    play_ours(&mut relay.app, &rounds).await;
    if !rustls_ends {
        relay.app.shutdown().await.unwrap();
    }
    let mut rest = Vec::new();
    relay.app.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    relay.app.shutdown().await.unwrap();
    let Over { result, moved, wire } = ended(relay.task).await;
    result.unwrap();
    drop(wire);
    thread.join().unwrap();
    let sum = |of: fn(&Round) -> usize| rounds.iter().map(of).sum::<usize>() as u64;
    assert_eq!(moved, Transferred { sent: sum(|r| r.ours), received: sum(|r| r.theirs) });
    assert_eq!(account.leased(), 0);
}

fn settings() -> impl Strategy<Value = Setting> {
    let ours = prop::sample::select(vec![Ours::Client, Ours::Server]);
    let fragment = prop::option::of(32_usize..2000);
    (ours, 0_usize..3, fragment, 0_usize..4).prop_map(|(ours, suite, fragment, tickets)| Setting {
        ours,
        suite,
        fragment,
        tickets,
        ..PLAIN
    })
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let length = || prop_oneof![3 => 0_usize..300, 2 => 0_usize..50_000, 1 => 0_usize..400_000];
    let round = (length(), length(), any::<bool>());
    let round = round.prop_map(|(theirs, ours, refresh)| Round { theirs, ours, refresh });
    prop::collection::vec(round, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_conversation_with_rustls_comes_to_its_end(
        setting in settings(),
        rounds in rounds(),
        rustls_ends: bool,
        limit in prop::option::of(1_u64..40),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let talk = converse(setting, rounds, rustls_ends, limit);
            tokio::time::timeout(GENEROUS, talk).await.expect("it stands still");
        });
    }
}

const SHORT_TALK: [Round; 2] = [
    Round { theirs: 300, ours: 20, refresh: false },
    Round { theirs: 5, ours: 3000, refresh: true },
];

#[tokio::test]
async fn every_suite_is_spoken_at_either_end() {
    for suite in 0..3 {
        for ours in [Ours::Client, Ours::Server] {
            for rustls_ends in [true, false] {
                let setting = Setting { ours, suite, ..PLAIN };
                converse(setting, SHORT_TALK.to_vec(), rustls_ends, None).await;
            }
        }
    }
}

/// A handshake in the smallest records that rustls makes, and byte by byte.
#[tokio::test]
async fn a_handshake_may_come_in_crumbs() {
    for ours in [Ours::Client, Ours::Server] {
        for segment in [1, 3, 7] {
            let setting = Setting { ours, fragment: Some(32), segment, tickets: 2, ..PLAIN };
            converse(setting, SHORT_TALK.to_vec(), true, None).await;
        }
    }
}

/// How a relay ends whose peer talks like this after a word each way; the application's end is a reset.
async fn cut(ours: Ours, talk: fn(Box<dyn Peer>)) -> RelayError {
    let quota = quota(usize::MAX);
    let account = &quota.buffers;
    let setting = Setting { ours, ..PLAIN };
    let rounds = [Round { theirs: 3, ours: 3, refresh: false }];
    let (wire, thread) = session(setting, &quota, move |mut peer| {
        play(&mut *peer, &rounds);
        talk(peer);
    })
    .await;
    let mut relay = Carried::start(bytes_of(wire), account).await;
    play_ours(&mut relay.app, &rounds).await;
    let result = ended(relay.task).await.result;
    thread.join().unwrap();
    let end = relay.app.read(&mut [0]).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(account.leased(), 0);
    result.unwrap_err()
}

#[tokio::test]
async fn an_end_without_close_notify_is_a_truncation() {
    for ours in [Ours::Client, Ours::Server] {
        let error = cut(ours, |mut peer| {
            peer.tcp().shutdown(Shutdown::Write).unwrap();
            // Nothing is said to whoever was cut off.
            assert!(peer.read(&mut [0]).is_err());
        });
        let error = error.await;
        assert!(
            matches!(&error, RelayError::Wire(WireError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof),
            "{error:?}"
        );
        assert_eq!(error.to_string(), "wire: the stream was cut short without close_notify");
    }
}

#[tokio::test]
async fn a_reset_of_the_wire_is_one_of_the_flow() {
    for ours in [Ours::Client, Ours::Server] {
        let error = cut(ours, |peer| sockopt::prepare_leg(peer.tcp()).unwrap()).await;
        assert!(
            matches!(&error, RelayError::Wire(WireError::Io(e)) if e.kind() == io::ErrorKind::ConnectionReset),
            "{error:?}"
        );
    }
}

/// What rustls makes of our alert: bytes that are no record of its keys go past it.
#[tokio::test]
async fn rustls_hears_our_alert() {
    let error = cut(Ours::Client, |mut peer| {
        let forged = [23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
        peer.tcp().write_all(&forged).unwrap();
        let heard = peer.read(&mut [0]).unwrap_err().to_string();
        assert!(heard.contains("BadRecordMac"), "{heard}");
    });
    let error = error.await;
    assert!(matches!(error, RelayError::Wire(WireError::Record(RecordError::BadMac))), "{error:?}");
}

#[tokio::test]
async fn we_hear_rustls_s_alert() {
    let quota = quota(usize::MAX);
    let account = &quota.buffers;
    let (mut wire, thread) = session(PLAIN, &quota, |mut peer| {
        peer.write_all(b"hello").unwrap();
        peer.read(&mut [0]).unwrap_err()
    })
    .await;
    let forged = [23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
    // Amid the handshake it would have another meaning: the peer is through when it has spoken.
    std::future::poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
    wire.tcp().peek(&mut [0]).await.unwrap();
    wire.tcp().try_write(&forged).unwrap();
    let mut relay = Carried::start(bytes_of(wire), account).await;
    relay.app.read_exact(&mut [0; 5]).await.unwrap();
    let error = ended(relay.task).await.result.unwrap_err();
    let expected = RecordError::Alert(Alert::BAD_RECORD_MAC);
    assert!(
        matches!(error, RelayError::Wire(WireError::Record(error)) if error == expected),
        "{error:?}"
    );
    thread.join().unwrap();
}
