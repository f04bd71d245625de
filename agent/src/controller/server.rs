//! The server: TLS by the controller's own SVID, HTTP/2, and the doorkeeper before all services.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::{ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::caller::Doorkeeper;
use crate::wire::words;

/// Connections at a time: two for each of 5 000 agents, and as many again.
const MOST_CONNECTIONS: usize = 20_000;
/// Connections of one address at a time: an agent has two or three.
const MOST_OF_AN_ADDRESS: usize = 32;
/// How long a client may take for TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often an idle connection is tried, and how long that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(15);
/// Calls of one agent at a time.
const MOST_CALLS: u32 = 128;
/// Bytes of all headers of a request: the token is among them.
const LONGEST_HEADERS: u32 = 24 << 10;
/// How long to wait when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// TLS 1.3 with HTTP/2.
///
/// # Errors
/// If the library cannot do it.
pub fn tls(
    provider: Arc<CryptoProvider>,
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Serves until `ending` is done. Streams are left to end by themselves.
///
/// # Errors
/// If serving is not possible.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    doorkeeper: Doorkeeper,
    services: Routes,
    ending: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (accepted, incoming) = mpsc::channel(64);
    let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(tls), accepted));
    let incoming = stream::unfold(incoming, async |mut incoming| {
        let connection: Connection = incoming.recv().await?;
        Some((Ok::<_, io::Error>(connection), incoming))
    });
    let served = Server::builder()
        .layer(doorkeeper)
        .max_concurrent_streams(MOST_CALLS)
        .http2_max_header_list_size(LONGEST_HEADERS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_PATIENCE))
        .add_routes(services)
        .serve_with_incoming_shutdown(incoming, ending)
        .await;
    accepting.abort();
    served
}

/// Accepts connections. Whoever is slow with its handshake keeps nobody else waiting.
async fn accept(listener: TcpListener, acceptor: TlsAcceptor, accepted: mpsc::Sender<Connection>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let sources = Arc::new(Sources::default());
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Whoever has many keeps nobody else out.
        let Some(source) = sources.take(peer.ip().to_canonical()) else {
            tracing::debug!(%peer, "one connection too many of this address");
            continue;
        };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let places = (place, source);
                    let _ = accepted.send(Connection { stream, _places: places }).await;
                }
                Ok(Err(error)) => {
                    let cause = error.get_ref().and_then(|error| error.downcast_ref());
                    let reason = cause.map_or_else(|| error.to_string(), words::handshake);
                    tracing::debug!(%peer, reason, "no TLS with a client");
                }
                Err(_) => tracing::debug!(%peer, "no TLS with a client in time"),
            }
        });
    }
}

/// A client's connection.
struct Connection {
    stream: TlsStream<TcpStream>,
    /// Others wait for them.
    _places: (OwnedSemaphorePermit, Source),
}

/// How many connections each address has.
#[derive(Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

/// A connection of an address, as long as this lives.
struct Source {
    of: Arc<Sources>,
    address: IpAddr,
}

impl Sources {
    /// `None` if the address has as many as it may.
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Source> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_default();
        if *count >= MOST_OF_AN_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Source { of: self.clone(), address })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut all = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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
        let sources = Arc::new(Sources::default());
        let [one, other]: [IpAddr; 2] = ["10.0.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        let mut taken: Vec<_> =
            (0..MOST_OF_AN_ADDRESS).map(|_| sources.take(one).unwrap()).collect();
        assert!(sources.take(one).is_none());
        assert!(sources.take(other).is_some());
        taken.pop();
        assert!(sources.take(one).is_some());
        drop(taken);
        assert!(sources.0.lock().unwrap().is_empty());
    }
}
