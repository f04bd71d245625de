//! The server: TLS by the controller's own SVID, HTTP/2, and the doorkeeper before all services.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::{ServerConfig, version};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use tonic::transport::Server;

use super::caller::Doorkeeper;
use super::connection::{Connection, Sources};
use super::counters::{Counters, Held};
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
    let (acceptor, counters) = (TlsAcceptor::from(tls), doorkeeper.counters.clone());
    let accepting = tokio::spawn(accept(listener, acceptor, accepted, counters));
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
async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<Connection>,
    counters: Arc<Counters>,
) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let sources = Arc::new(Sources::new(MOST_OF_AN_ADDRESS));
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
            counters.connections_refused.increment();
            tracing::debug!(%peer, "one connection too many of this address");
            continue;
        };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        let counted = Held::of(&counters.connections);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let places = (place, source, counted);
                    let _ = accepted.send(Connection::new(stream, places)).await;
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
