//! A client's connection: who has it, how many its address has, and how long it may be of no use.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::counters::Held;

/// How long a connection may be there without any request of an agent: a review of its token may take ten seconds.
const UNPROVED: Duration = Duration::from_secs(30);
/// How long since the last one: a stream lasts half an hour.
const IDLE: Duration = Duration::from_secs(45 * 60);

/// A client's connection.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    client: Client,
    /// When it is to be looked at whether it is of use.
    look: Pin<Box<Sleep>>,
    /// Others wait for them.
    _places: Places,
}

/// What a connection takes of what there is.
pub type Places = (OwnedSemaphorePermit, Source, Held);

/// Whose connection a request has come by.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: IpAddr,
    /// When the connection ends, if it is of no more use than it was.
    ends: Arc<Mutex<Instant>>,
}

impl Client {
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self { address, ends: Arc::new(Mutex::new(Instant::now() + UNPROVED)) }
    }

    /// A request was let in.
    pub fn is_let_in(&self) {
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + IDLE;
    }

    fn ends(&self) -> Instant {
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    #[must_use]
    pub fn new(stream: TlsStream<TcpStream>, places: Places) -> Self {
        let client = Client::new(places.1.address);
        let look = Box::pin(tokio::time::sleep_until(client.ends()));
        Self { stream, client, look, _places: places }
    }

    /// Ready when it has been of no use for too long.
    fn poll_useless(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.look.as_mut().poll(context).is_ready() {
            let ends = self.client.ends();
            if ends <= Instant::now() {
                return Poll::Ready(());
            }
            self.look.as_mut().reset(ends);
        }
        Poll::Pending
    }
}

/// How many connections each address has.
pub struct Sources {
    most: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection of an address, as long as this lives.
pub struct Source {
    of: Arc<Sources>,
    address: IpAddr,
}

impl Sources {
    /// `most` are those of one address.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, counts: Mutex::default() }
    }

    /// `None` if the address has as many as it may.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Source> {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Source { of: self.clone(), address })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut all = self.of.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Client;

    fn connect_info(&self) -> Client {
        self.client.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.poll_useless(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_others_have_theirs() {
        let sources = Arc::new(Sources::new(5));
        let [one, other]: [IpAddr; 2] = ["10.0.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        let mut taken: Vec<_> = (0..5).map(|_| sources.take(one).unwrap()).collect();
        assert!(sources.take(one).is_none());
        assert!(sources.take(other).is_some());
        taken.pop();
        assert!(sources.take(one).is_some());
        drop(taken);
        assert!(sources.counts.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_good_for_longer_once_an_agent_has_called_by_it() {
        let client = Client::new(IpAddr::from([10, 0, 0, 1]));
        let begun = Instant::now();
        assert_eq!(client.ends(), begun + UNPROVED);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(client.ends(), begun + UNPROVED, "time alone changes nothing");
        client.clone().is_let_in();
        assert_eq!(client.ends(), Instant::now() + IDLE);
    }
}
