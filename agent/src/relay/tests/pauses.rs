//! A relay that is paused, saved, and gone on with from what was saved: nobody else notices.

use std::future::poll_fn;
use std::task::Poll;

use proptest::prelude::*;
use socket2::SockRef;

use super::patterns::{Application, pairs};
use super::*;
use crate::wire::modes;
use crate::wire::saved::{Encoded, SavedWire};

/// Ready when it is polled for the `count`th time; a relay is polled once less.
async fn polls(mut count: usize) {
    poll_fn(|_| {
        count = count.saturating_sub(1);
        if count == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Another descriptor of the same connection, as another process would have it.
fn handed_over(tcp: &TcpStream) -> std::net::TcpStream {
    SockRef::from(tcp).try_clone().unwrap().into()
}

/// As bytes between two processes.
fn sent<T: serde::Serialize + serde::de::DeserializeOwned>(state: &T) -> T {
    postcard::from_bytes(&postcard::to_allocvec(state).unwrap()).unwrap()
}

/// A relay and its legs.
struct Running {
    relay: Relay,
    app: TcpStream,
    wire: BoxedSession,
    account: Arc<Account>,
    timeouts: IdleTimeouts,
}

impl Running {
    /// Goes on from what was saved, with nothing but that and the connections.
    fn restored(self) -> Self {
        let relay: Encoded = sent(&self.relay.save().unwrap());
        let wire: SavedWire = sent(&self.wire.save().unwrap());
        let (app, tcp) = (handed_over(&self.app), handed_over(self.wire.tcp()));
        let Self { account, timeouts, .. } = self;
        let relay = Relay::restore(&relay, timeouts).unwrap();
        let wire = modes::restore(&wire, tcp, account.clone()).unwrap();
        Self { relay, app: TcpStream::from_std(app).unwrap(), wire, account, timeouts }
    }

    /// Relays to the end, with a pause after each of these numbers of polls, again and again.
    async fn run(mut self, pauses: Vec<usize>) -> Over {
        let mut pauses = pauses.into_iter().cycle();
        loop {
            // At its first poll the runtime does not know yet whether there is anything to do.
            let pause = polls(3 + pauses.next().unwrap());
            match self.relay.run(&self.app, &mut *self.wire, pin!(pause)).await {
                Ok(Done::Paused(())) => self = self.restored(),
                Ok(Done::Ended) => {
                    sockopt::close_gracefully(&self.app).unwrap();
                    let moved = self.relay.transferred();
                    return Over { result: Ok(()), moved, wire: self.wire.finish().unwrap() };
                }
                Err(error) => {
                    return Over {
                        result: Err(error),
                        moved: self.relay.transferred(),
                        wire: None,
                    };
                }
            }
        }
    }
}

/// Starts a relay that pauses.
async fn start(wire: BoxedSession, account: &Arc<Account>, pauses: &[usize]) -> Carried {
    let (app, leg) = tcp_pair().await;
    sockopt::close_gracefully(&app).unwrap();
    let timeouts = IdleTimeouts::default();
    let (account, relay) = (account.clone(), Relay::new(timeouts));
    let running = Running { relay, app: leg, wire, account: account.clone(), timeouts };
    let task = tokio::spawn(running.run(pauses.to_vec()));
    Carried { app, account, task }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pausing_at_any_point_changes_nothing(
        flows in prop::collection::vec(pairs(), 1..3),
        pauses in prop::collection::vec(0_usize..20, 1..8),
        narrow: bool,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let test = async {
                carry(Kind::Bytes, &flows[..1], &pauses, narrow).await;
                carry(Kind::Flows, &flows, &pauses, narrow).await;
                carry_plain(&flows[0], &pauses).await;
            };
            tokio::time::timeout(2 * GENEROUS, test).await.expect("it stands still");
        });
    }
}

/// Carries one flow after the other through one session, with pauses at both ends.
async fn carry(kind: Kind, flows: &[(Application, Application)], pauses: &[usize], narrow: bool) {
    let accounts = [account(), account()];
    let wire = if narrow { narrow_tcp_pair().await } else { tcp_pair().await };
    let (client, server) = sessions(wire, [&accounts[0], &accounts[1]]);
    let (mut client, mut server) = begin(kind, client, server);
    for (number, (one, other)) in flows.iter().enumerate() {
        if number > 0 {
            client.begin(endpoints()).unwrap();
            server.accept().unwrap();
        }
        let here = start(client, &accounts[0], pauses).await;
        let there = start(server, &accounts[1], pauses).await;
        let (heard_here, heard_there) =
            tokio::join!(one.talk(here.app, 1), other.talk(there.app, 2));
        assert!(heard_here == other.says(2), "{} bytes came back", heard_here.len());
        assert!(heard_there == one.says(1), "{} bytes arrived", heard_there.len());
        let (here, there) = (ended(here.task).await, ended(there.task).await);
        here.result.unwrap();
        there.result.unwrap();
        let (said, heard) = (heard_there.len() as u64, heard_here.len() as u64);
        assert_eq!(here.moved, Transferred { sent: said, received: heard });
        assert_eq!(there.moved, Transferred { sent: heard, received: said });
        for account in &accounts {
            assert_eq!(account.leased(), 0, "held after the flow");
        }
        if kind == Kind::Bytes {
            return;
        }
        (client, server) = (here.wire.unwrap(), there.wire.unwrap());
        assert!(client.is_quiet() && server.is_quiet());
    }
}

/// The same with a wire that is TCP itself.
async fn carry_plain((one, other): &(Application, Application), pauses: &[usize]) {
    let account = account();
    let (peer, wire) = tcp_pair().await;
    sockopt::close_gracefully(&peer).unwrap();
    let wire = crate::wire::plain::session(wire, account.clone());
    let here = start(wire, &account, pauses).await;
    let (heard_here, heard_there) = tokio::join!(one.talk(here.app, 1), other.talk(peer, 2));
    assert!(heard_here == other.says(2), "{} bytes came back", heard_here.len());
    assert!(heard_there == one.says(1), "{} bytes arrived", heard_there.len());
    ended(here.task).await.result.unwrap();
    assert_eq!(account.leased(), 0, "held after the flow");
}

/// A reset is one also for those who have been paused before it, and after one direction has ended.
#[tokio::test]
async fn a_flow_that_was_paused_ends_as_any_other() {
    for kind in KINDS {
        for is_half_closed in [false, true] {
            let accounts = [account(), account()];
            let (client, server) = sessions(tcp_pair().await, [&accounts[0], &accounts[1]]);
            let (client, server) = begin(kind, client, server);
            let mut here = start(client, &accounts[0], &[0]).await;
            let mut there = start(server, &accounts[1], &[0]).await;
            here.app.write_all(b"I must").await.unwrap();
            there.app.read_exact(&mut [0; 6]).await.unwrap();
            if is_half_closed {
                here.app.shutdown().await.unwrap();
                assert_eq!(there.app.read(&mut [0]).await.unwrap(), 0);
            }
            // Closed by a reset.
            sockopt::prepare_leg(&here.app).unwrap();
            drop(here.app);
            let result = ended(here.task).await.result;
            assert!(matches!(result, Err(RelayError::App(_))), "{kind:?} {result:?}");
            match (kind, ended(there.task).await.result) {
                (Kind::Flows, Err(RelayError::Wire(WireError::Reset(ResetCode::APPLICATION)))) => {}
                (Kind::Bytes, Err(RelayError::Wire(WireError::Io(error)))) => {
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                }
                (_, other) => panic!("{kind:?} {other:?}"),
            }
            assert_eq!((accounts[0].leased(), accounts[1].leased()), (0, 0));
        }
    }
}

/// Bytes that were opened, or begun, and that nobody has taken yet, go along; so do keys that the peer has asked for.
#[tokio::test]
async fn what_waits_for_a_slow_application_goes_along() {
    let account = account();
    let (wire, mut raw) = with_raw(tcp_pair().await, &account);
    let said = pattern(300_000, 9);
    let mut records = raw.seal(ContentType::ApplicationData, opening().encode().as_ref());
    for chunk in said.chunks(10_000) {
        records.extend(raw.seal(ContentType::ApplicationData, &data_frame(chunk)));
        // A request for new keys, and no answer as long as the application reads nothing.
        records.extend(raw.seal(ContentType::Handshake, &[24, 0, 0, 1, 1]));
        raw.rekey();
    }
    let (mut app, leg) = narrow_tcp_pair().await;
    let timeouts = IdleTimeouts::default();
    let mut running = Running {
        relay: Relay::new(timeouts),
        app: leg,
        wire: served(Kind::Flows, wire),
        account: account.clone(),
        timeouts,
    };
    let writing = tokio::spawn(async move {
        raw.write(&records).await;
        raw
    });
    let mut heard = Vec::new();
    while heard.len() < said.len() {
        let pause = tokio::time::sleep(Duration::from_millis(5));
        let done = running.relay.run(&running.app, &mut *running.wire, pin!(pause)).await.unwrap();
        assert!(matches!(done, Done::Paused(())));
        running = running.restored();
        let mut room = [0; 20_000];
        // It may have been paused before it could do anything.
        let reading = tokio::time::timeout(Duration::from_millis(1), app.read(&mut room));
        if let Ok(read) = reading.await {
            heard.extend_from_slice(&room[..read.unwrap()]);
        }
    }
    assert!(heard == said, "{} bytes", heard.len());
    drop(writing.await.unwrap());
}

/// Whatever a state says, it is refused or becomes a relay; it never makes the agent panic.
#[test]
fn a_state_that_contradicts_itself_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let account = account();
        let (client, _server) = sessions(tcp_pair().await, [&account, &account]);
        let mut wire: BoxedSession = Box::new(Flows::new(client, Role::Client));
        wire.begin(endpoints()).unwrap();
        let saved = postcard::to_allocvec(&wire.save().unwrap()).unwrap();
        for at in 0..saved.len() {
            for flip in [1, 0x7f, 0x80, 0xff] {
                let mut damaged = saved.clone();
                damaged[at] ^= flip;
                if let Ok(damaged) = postcard::from_bytes::<SavedWire>(&damaged) {
                    let _ = modes::restore(&damaged, handed_over(wire.tcp()), account.clone());
                }
            }
        }
        let mut unknown = wire.save().unwrap();
        unknown.mode = "sheath/9".to_owned();
        let refused = modes::restore(&unknown, handed_over(wire.tcp()), account.clone());
        assert!(refused.unwrap_err().to_string().contains("sheath/9"));
        drop(wire);
        assert_eq!(account.leased(), 0);
    });
}
