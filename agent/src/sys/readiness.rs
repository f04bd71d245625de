//! Reading and writing sockets with as few system calls as possible.
//!
//! A write that takes less than it was given has filled the socket: asking once more, only to be told `EAGAIN`, would be
//! wasted. What happens in between is not lost, as the runtime takes note of every event that comes after the call began.
//! This is not true of reads: one that ends at urgent data is short, too.

use std::borrow::Borrow;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::sys::uio::writev;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads once, if there is anything to read: `None` if not. 0 bytes are the end.
pub fn try_read(stream: &TcpStream, room: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
    match stream.try_read_vectored(room) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        read => read.map(Some),
    }
}

/// Writes once, as much as the socket takes.
pub fn poll_write(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    bytes: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let given: usize = bytes.iter().map(|bytes| bytes.len()).sum();
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let mut written = None;
        let done = stream.try_io(Interest::WRITABLE, || {
            let count = *written.insert(writev(stream, bytes)?);
            // Full: the runtime is to wait for the next event.
            if count < given { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (written, done) {
            (Some(written), _) => return Poll::Ready(Ok(written)),
            (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                return Poll::Ready(Err(error));
            }
            (None, _) => {}
        }
    }
}

/// Why a connection has failed, once it has.
pub type Failure<'s> = Pin<Box<dyn Future<Output = io::Error> + Send + 's>>;

/// Waits until a connection fails: by a reset, or because the peer does not answer any more. After the end of a stream,
/// reading no longer shows a failure; only writing or this does.
pub fn failure<'s>(stream: impl Borrow<TcpStream> + Send + 's) -> Failure<'s> {
    Box::pin(async move {
        let stream = stream.borrow();
        let failed = stream.ready(Interest::ERROR).await;
        match failed.and_then(|_| stream.take_error()) {
            Ok(Some(error)) | Err(error) => error,
            // The error has been taken by another call.
            Ok(None) => io::ErrorKind::ConnectionReset.into(),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (dialled, listener.accept().await.unwrap().0)
    }

    async fn read(stream: &TcpStream, room: &mut [u8]) -> usize {
        loop {
            poll_fn(|cx| stream.poll_read_ready(cx)).await.unwrap();
            if let Some(read) = try_read(stream, &mut [IoSliceMut::new(room)]).unwrap() {
                return read;
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_missed_after_a_short_read() {
        let (mut one, other) = pair().await;
        let mut room = [0; 8];
        for round in 0..1000_u32 {
            one.write_all(&round.to_be_bytes()).await.unwrap();
            assert_eq!(read(&other, &mut room).await, 4);
            assert_eq!(room[..4], round.to_be_bytes());
        }
        // The last bytes and the end at once.
        one.write_all(b"end").await.unwrap();
        drop(one);
        assert_eq!(read(&other, &mut room).await, 3);
        assert_eq!(read(&other, &mut room).await, 0);
        assert_eq!(read(&other, &mut room).await, 0);
    }

    /// A read stops before urgent data, and the next one behind it (tcp(7), `SO_OOBINLINE`), without another event.
    #[tokio::test]
    async fn urgent_data_leaves_nothing_unread() {
        let (one, other) = pair().await;
        socket2::SockRef::from(&other).set_out_of_band_inline(true).unwrap();
        let one = socket2::SockRef::from(&one);
        one.send(b"before").unwrap();
        one.send_out_of_band(b"!").unwrap();
        one.send(b"behind").unwrap();
        let all_there = std::time::Duration::from_millis(100);
        tokio::time::sleep(all_there).await;
        let mut seen = Vec::new();
        let mut room = [0; 64];
        while seen.len() < b"before!behind".len() {
            let reading = read(&other, &mut room);
            let count = tokio::time::timeout(std::time::Duration::from_secs(10), reading).await;
            seen.extend_from_slice(&room[..count.expect("an event for what is there")]);
            // The runtime looks at its events in between.
            tokio::time::sleep(all_there).await;
        }
        assert_eq!(seen, b"before!behind");
    }

    #[tokio::test]
    async fn writing_goes_on_when_a_full_socket_has_room_again() {
        const TOTAL: usize = 32 << 20;
        let (one, mut other) = pair().await;
        let writing = async {
            let chunk = vec![7; 1 << 20];
            let mut rest = TOTAL;
            while rest > 0 {
                let now = [IoSlice::new(&chunk[..rest.min(chunk.len())])];
                rest -= poll_fn(|cx| poll_write(&one, cx, &now)).await.unwrap();
            }
            drop(one);
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(writing, other.read_to_end(&mut received));
        assert_eq!(read.unwrap(), TOTAL);
    }
}
