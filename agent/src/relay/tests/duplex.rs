//! [`run`]: streams that somebody else reads and writes.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

use super::super::*;

struct Ends {
    app: DuplexStream,
    peer: DuplexStream,
    relay: tokio::task::JoinHandle<(Result<(), RelayError>, Moved)>,
}

fn start() -> Ends {
    let (app, mut app_leg) = duplex(1024);
    let (peer, mut wire_leg) = duplex(1024);
    let relay = tokio::spawn(async move {
        let mut moved = Moved::default();
        let result = run(&mut app_leg, &mut wire_leg, &mut moved).await;
        (result, moved)
    });
    Ends { app, peer, relay }
}

#[tokio::test]
async fn bytes_and_ends_pass_in_both_directions() {
    let Ends { mut app, mut peer, relay } = start();
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
    assert_eq!(moved, Moved { sent: 8, received: 100_000 });
}

#[tokio::test]
async fn the_server_may_speak_first() {
    let Ends { mut app, mut peer, relay } = start();
    peer.write_all(b"welcome").await.unwrap();
    let mut greeting = [0; 7];
    app.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"welcome");
    relay.abort();
}

#[tokio::test]
async fn a_slow_reader_slows_the_writer_down() {
    let Ends { mut app, peer, relay } = start();
    let capacity = async {
        let mut written = 0_usize;
        loop {
            app.write_all(&[0; 1024]).await.unwrap();
            written += 1024;
            tokio::task::yield_now().await;
            if written > 1024 * 1024 {
                break;
            }
        }
    };
    let blocked = tokio::time::timeout(std::time::Duration::from_millis(200), capacity).await;
    assert!(blocked.is_err(), "a megabyte was swallowed while nobody read");
    drop(peer);
    relay.abort();
}

#[tokio::test]
async fn a_failing_leg_is_named() {
    let (mut app_leg, app) = duplex(64);
    let mut wire_leg = cut_stream();
    let mut moved = Moved::default();
    let result = run(&mut app_leg, &mut wire_leg, &mut moved).await;
    assert!(matches!(result, Err(RelayError::Wire(_))));
    drop(app);
}

/// A stream whose reads fail as a TLS stream's do when the connection is cut.
fn cut_stream() -> impl AsyncRead + AsyncWrite + Unpin {
    struct Cut;
    impl AsyncRead for Cut {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
        }
    }
    impl AsyncWrite for Cut {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::task::Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }
    Cut
}

/// As TCP has it: what a peer said before it hung up is there to be read, although nothing can be sent to it
/// any more.
#[tokio::test]
async fn what_was_said_before_hanging_up_is_delivered() {
    let Ends { mut app, mut peer, relay } = start();
    peer.write_all(b"go away").await.unwrap();
    drop(peer);
    app.write_all(&[0; 10]).await.unwrap();
    let mut said = Vec::new();
    app.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"go away");
    let (result, moved) = relay.await.unwrap();
    assert!(matches!(result, Err(RelayError::Wire(_))), "{result:?}");
    assert_eq!(moved.received, 7);
}
