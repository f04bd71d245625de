//! What a permissive port lets through: a wire that is TCP itself.

use std::net::Shutdown;

use socket2::SockRef;
use tokio::io::Interest;

use super::*;

struct Ends {
    app: TcpStream,
    peer: TcpStream,
    account: Arc<Account>,
    relay: JoinHandle<(Result<(), RelayError>, Transferred)>,
}

/// A relay of plaintext.
async fn start() -> Ends {
    start_patient(IdleTimeouts::default()).await
}

async fn start_patient(patience: IdleTimeouts) -> Ends {
    let account = account();
    let buffers = account.clone();
    let (app, app_leg) = narrow_tcp_pair().await;
    let (peer, wire_leg) = narrow_tcp_pair().await;
    for end in [&app, &peer] {
        sockopt::close_gracefully(end).unwrap();
    }
    let relay = tokio::spawn(async move {
        let mut relay = Relay::new(patience);
        let mut wire = crate::wire::plain::session(wire_leg, buffers);
        let result = relay.run(&app_leg, &mut *wire, pin!(pending::<()>())).await;
        if result.is_ok() {
            sockopt::close_gracefully(&app_leg).unwrap();
            assert!(wire.finish().unwrap().is_none());
        }
        (result.map(|_| ()), relay.transferred())
    });
    Ends { app, peer, account, relay }
}

#[tokio::test]
async fn bytes_and_ends_pass_in_both_directions() {
    let Ends { mut app, mut peer, relay, .. } = start().await;
    app.write_all(b"question").await.unwrap();
    app.shutdown().await.unwrap();
    let mut question = Vec::new();
    peer.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    // The other direction is still open after the first has ended.
    let respond = async {
        peer.write_all(&[7; 100_000]).await.unwrap();
        peer.shutdown().await.unwrap();
    };
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(respond, app.read_to_end(&mut answer));
    read.unwrap();
    assert_eq!(answer.len(), 100_000);
    let (result, moved) = relay.await.unwrap();
    assert!(result.is_ok());
    assert_eq!(moved, Transferred { sent: 8, received: 100_000 });
}

#[tokio::test]
async fn the_server_may_speak_first() {
    let Ends { mut app, mut peer, relay, .. } = start().await;
    peer.write_all(b"welcome").await.unwrap();
    let mut greeting = [0; 7];
    app.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"welcome");
    relay.abort();
}

#[tokio::test]
async fn a_slow_reader_slows_the_writer_down() {
    let Ends { mut app, peer, relay, .. } = start().await;
    let capacity = async {
        let mut written = 0_usize;
        while written <= 1024 * 1024 {
            app.write_all(&[0; 1024]).await.unwrap();
            written += 1024;
            tokio::task::yield_now().await;
        }
    };
    let blocked = tokio::time::timeout(Duration::from_millis(200), capacity).await;
    assert!(blocked.is_err(), "a megabyte was swallowed while nobody read");
    drop(peer);
    relay.abort();
}

/// How a relay has ended, which must be soon.
async fn ended(
    relay: JoinHandle<(Result<(), RelayError>, Transferred)>,
) -> (RelayError, Transferred) {
    let ended = tokio::time::timeout(SOON, relay).await.expect("the relay goes on").unwrap();
    (ended.0.unwrap_err(), ended.1)
}

/// Closes a connection by a reset.
fn hang_up(end: TcpStream) {
    sockopt::prepare_leg(&end).unwrap();
}

/// Waits until somebody who has nothing to read is told that the connection is gone.
async fn assert_told_of_reset(end: &TcpStream) {
    let told = tokio::time::timeout(SOON, end.ready(Interest::ERROR)).await;
    told.expect("nobody is told").unwrap();
}

#[tokio::test]
async fn a_failing_leg_is_named() {
    let Ends { app, peer, relay, .. } = start().await;
    hang_up(peer);
    assert!(matches!(ended(relay).await.0, RelayError::Wire(_)));
    assert_told_of_reset(&app).await;
    let Ends { app, peer, relay, .. } = start().await;
    hang_up(app);
    assert!(matches!(ended(relay).await.0, RelayError::App(_)));
    assert_told_of_reset(&peer).await;
}

/// Also when it has ended its direction before, and nothing moves in the other.
#[tokio::test]
async fn a_leg_that_fails_half_closed_is_noticed_at_once() {
    let Ends { mut app, peer, relay, .. } = start().await;
    SockRef::from(&peer).shutdown(Shutdown::Write).unwrap();
    assert_eq!(app.read(&mut [0]).await.unwrap(), 0);
    hang_up(peer);
    assert_told_of_reset(&app).await;
    assert!(matches!(ended(relay).await.0, RelayError::Wire(_)));

    let Ends { app, mut peer, relay, .. } = start().await;
    SockRef::from(&app).shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    hang_up(app);
    assert_told_of_reset(&peer).await;
    assert!(matches!(ended(relay).await.0, RelayError::App(_)));
}

/// As TCP has it: what a peer said before it hung up is there to be read, although nothing can be sent to it
/// any more.
#[tokio::test]
async fn what_was_said_before_hanging_up_is_delivered() {
    let Ends { mut app, mut peer, relay, .. } = start().await;
    peer.write_all(b"go away").await.unwrap();
    drop(peer);
    let mut said = [0; 7];
    app.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"go away");
    // Its kernel answers this with a reset.
    app.write_all(&[0; 10]).await.unwrap();
    assert_told_of_reset(&app).await;
    let (error, moved) = ended(relay).await;
    assert!(matches!(error, RelayError::Wire(_)), "{error:?}");
    assert_eq!(moved.received, 7);
}

#[tokio::test]
async fn an_idle_relay_holds_no_buffers() {
    let Ends { mut app, mut peer, account, relay } = start().await;
    none_held(&account).await;
    for _ in 0..3 {
        app.write_all(b"question").await.unwrap();
        peer.read_exact(&mut [0; 8]).await.unwrap();
        peer.write_all(b"answer").await.unwrap();
        app.read_exact(&mut [0; 6]).await.unwrap();
        none_held(&account).await;
    }
    SockRef::from(&app).shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    none_held(&account).await;
    assert!(!relay.is_finished());
    relay.abort();
}

#[tokio::test]
async fn nothing_moves_for_too_long() {
    const LIMIT: Duration = Duration::from_secs(1);
    let idle = IdleTimeouts { idle: Some(LIMIT), ..IdleTimeouts::default() };
    let Ends { mut app, mut peer, relay, .. } = start_patient(idle).await;
    for _ in 0..6 {
        tokio::time::sleep(LIMIT / 4).await;
        app.write_all(b"x").await.unwrap();
        peer.read_exact(&mut [0]).await.unwrap();
    }
    let start = tokio::time::Instant::now();
    assert!(matches!(ended(relay).await.0, RelayError::Idle(LIMIT)));
    assert!(start.elapsed() >= LIMIT / 2, "cut after {:?}", start.elapsed());

    let half_closed = IdleTimeouts { half_closed: Some(LIMIT), ..IdleTimeouts::default() };
    let Ends { app, mut peer, relay, .. } = start_patient(half_closed).await;
    tokio::time::sleep(LIMIT * 2).await;
    assert!(!relay.is_finished(), "both directions are open");
    SockRef::from(&app).shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    assert!(matches!(ended(relay).await.0, RelayError::Idle(LIMIT)));
}
