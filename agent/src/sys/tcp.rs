//! TCP for readers and writers that use tokio's traits.

use std::borrow::Borrow;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::readiness;

/// A connection, owned or borrowed, that leaves nothing unread. Read through the trait, a [`TcpStream`] itself
/// takes a short read for an emptied socket, and waits; but a read that ends at urgent data is short, too.
#[derive(Debug)]
pub struct Tcp<S>(pub S);

impl<S: Borrow<TcpStream>> Tcp<S> {
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.0.borrow()
    }
}

impl<S: Borrow<TcpStream> + Unpin> AsyncRead for Tcp<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.stream();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            if let Some(read) = readiness::try_read(stream, &mut [IoSliceMut::new(room)])? {
                buffer.advance(read);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: Borrow<TcpStream> + Unpin> AsyncWrite for Tcp<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        readiness::poll_write(self.stream(), cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        readiness::poll_write(self.stream(), cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing waits here to be written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(self.stream()).shutdown(Shutdown::Write) {
            // As with a `TcpStream`: the peer has reset it, which is for the reader to find out.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::wire::testing::tcp_pair;

    #[tokio::test]
    async fn what_is_behind_urgent_data_is_read_without_another_event() {
        let (one, other) = tcp_pair().await;
        SockRef::from(&other).set_out_of_band_inline(true).unwrap();
        let sender = SockRef::from(&one);
        sender.send(b"before").unwrap();
        sender.send_out_of_band(b"!").unwrap();
        sender.send(b"behind").unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut seen = [0; b"before!behind".len()];
        let reading = async { Tcp(&other).read_exact(&mut seen).await };
        let read = tokio::time::timeout(Duration::from_secs(10), reading).await;
        read.expect("an event for what is there").unwrap();
        assert_eq!(&seen, b"before!behind");
    }

    #[tokio::test]
    async fn bytes_and_ends_pass_whatever_the_size_of_the_buffers() {
        const TOTAL: usize = 8 << 20;
        let (one, other) = tcp_pair().await;
        let (mut one, mut other) = (Tcp(one), Tcp(other));
        let sent: Vec<u8> = (0..TOTAL).map(|index| (index ^ (index >> 8)) as u8).collect();
        let sending = async {
            one.write_all(&sent).await.unwrap();
            one.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(sending, other.read_to_end(&mut received));
        assert_eq!(read.unwrap(), TOTAL);
        assert!(received == sent);
    }
}
