//! The agent's connection to the controller: TLS that only the controller can end, the agent's token, and the way to the replica
//! that leads.
//!
//! One connection serves all callers of a link. A replica that does not lead says who does, and is believed: it has proved that it is
//! the controller, and so must the other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, OtherError};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tower::service_fn;
use zeroize::Zeroizing;

use super::error::is_of_transport;
use super::verifier::{ControllerVerifier, NotTheController};
use super::{LEADER, LinkError, LinkSettings};
use crate::sys::files;
use crate::trust::{Authenticator, Trust, TrustBundle};
use crate::wire::words;
use crate::x509::CertificateFile;

/// How long connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the controller may take to begin with an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often an idle connection is tried, and how long that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(10);
/// How many replicas are asked one after the other.
const MOST_HOPS: usize = 4;
/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;
/// Bytes of the longest token; real ones have 1 to 2 KB.
const LONGEST_TOKEN: u64 = 16 << 10;

/// What calls go through: the connection, and the token as it is now.
pub type Carrier = InterceptedService<Channel, Bearer>;

/// A connection to the controller, made when it is needed.
#[derive(Debug)]
pub struct Link {
    settings: LinkSettings,
    provider: Arc<CryptoProvider>,
    way: Mutex<Way>,
}

#[derive(Debug, Default)]
struct Way {
    /// The replica that leads, as far as is known.
    leader: Option<SocketAddr>,
    /// It was named a moment ago, and nobody has connected to it yet.
    is_named: bool,
    channel: Option<Channel>,
    /// Counts connections, so that nobody gives up one that another has made since.
    number: u64,
}

/// Shows the agent's token with each request.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl Link {
    #[must_use]
    pub fn new(settings: LinkSettings, provider: Arc<CryptoProvider>) -> Self {
        Self { settings, provider, way: Mutex::default() }
    }

    #[must_use]
    pub fn settings(&self) -> &LinkSettings {
        &self.settings
    }

    #[must_use]
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// Makes a call to the replica that leads. `ask` may be called several times, each time with another connection. For a
    /// stream it ends when the stream begins.
    ///
    /// # Errors
    /// If no replica can be reached, is the controller, or answers.
    pub async fn call<T, F>(&self, ask: impl Fn(Carrier) -> F) -> Result<T, LinkError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        for _ in 0..MOST_HOPS {
            let token = self.token()?;
            let Connected { channel, number, is_new } = self.connected().await?;
            let carrier = InterceptedService::new(channel, Bearer(token));
            let status = match tokio::time::timeout(PATIENCE, ask(carrier)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_) => {
                    self.give_up(number, None).await;
                    return Err(LinkError::Silent(PATIENCE));
                }
            };
            match leader(&status) {
                Said::Nothing if is_of_transport(&status) => {
                    self.give_up(number, None).await;
                    // It may have been dead for long.
                    if is_new {
                        return Err(status.into());
                    }
                }
                Said::Nothing => return Err(status.into()),
                Said::Leader(leader) => self.give_up(number, Some(leader)).await,
                Said::NoLeader => {
                    self.give_up(number, None).await;
                    return Err(LinkError::NoLeader);
                }
            }
        }
        // They name one another.
        let mut way = self.way.lock().await;
        (way.channel, way.leader) = (None, None);
        Err(LinkError::NoLeader)
    }

    /// Ends a connection, if it is still in use. The next goes to `leader`, or to the address of all replicas.
    async fn give_up(&self, number: u64, leader: Option<SocketAddr>) {
        let mut way = self.way.lock().await;
        if way.number == number {
            way.channel = None;
            way.leader = leader;
            way.is_named = leader.is_some();
        }
    }

    async fn connected(&self) -> Result<Connected, LinkError> {
        // Held while connecting: others wait for the same connection.
        let mut way = self.way.lock().await;
        if let Some(channel) = way.channel.clone() {
            return Ok(Connected { channel, number: way.number, is_new: false });
        }
        let is_named = std::mem::take(&mut way.is_named);
        // A leader that is gone is not asked again.
        let stream = match way.leader.take() {
            Some(leader) => match self.dial(&leader.to_string(), vec![leader]).await {
                Ok(stream) => {
                    way.leader = Some(leader);
                    stream
                }
                // The others would name the same one, until another leads.
                Err(LinkError::Unreachable { .. }) if !is_named => self.dial_any().await?,
                Err(error) => return Err(error),
            },
            None => self.dial_any().await?,
        };
        let channel = carry(stream).await?;
        way.channel = Some(channel.clone());
        way.number += 1;
        Ok(Connected { channel, number: way.number, is_new: true })
    }

    async fn dial_any(&self) -> Result<TlsStream<TcpStream>, LinkError> {
        let address = &self.settings.address;
        let resolving = tokio::net::lookup_host((address.host.as_str(), address.port));
        let found = match tokio::time::timeout(CONNECT, resolving).await {
            Ok(found) => found,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let found =
            found.map_err(|error| LinkError::Unresolved { address: address.to_string(), error })?;
        self.dial(&address.to_string(), found.take(MOST_ADDRESSES).collect()).await
    }

    async fn dial(
        &self,
        name: &str,
        addresses: Vec<SocketAddr>,
    ) -> Result<TlsStream<TcpStream>, LinkError> {
        let config = self.tls()?;
        let address = || name.to_owned();
        let unreachable = |reason: String| LinkError::Unreachable { address: address(), reason };
        let connecting = async {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let dialling = async {
            let stream = connecting.await.map_err(|error| unreachable(error.to_string()))?;
            let _ = stream.set_nodelay(true);
            // The name is sent to nobody, and proves nothing: the SPIFFE ID does.
            let name = ServerName::try_from("sheath-controller")
                .map_err(|error| LinkError::Senseless(error.to_string()))?;
            let secured = TlsConnector::from(config).connect(name, stream).await;
            secured.map_err(|error| self.tls_error(address(), &error))
        };
        match tokio::time::timeout(CONNECT, dialling).await {
            Ok(dialled) => dialled,
            Err(_) => Err(unreachable("it does not answer in time".to_owned())),
        }
    }

    fn tls_error(&self, address: String, error: &io::Error) -> LinkError {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        let reason = match cause {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause)))) => {
                if let Some(error) = cause.downcast_ref::<NotTheController>() {
                    let (roots, error) = (self.settings.roots.clone(), Box::new(error.clone()));
                    return LinkError::Untrusted { address, roots, error };
                }
                cause.to_string()
            }
            Some(error) => words::handshake(error),
            None => error.to_string(),
        };
        LinkError::Tls { address, reason }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, LinkError> {
        let LinkSettings { roots: path, spiffe_id, .. } = &self.settings;
        let roots = CertificateFile::read(path)?.certificates;
        let bundle = TrustBundle::new(spiffe_id.trust_domain().clone(), roots)
            .map_err(|error| LinkError::Bundle { path: path.clone(), error })?;
        let verifier = ControllerVerifier {
            authenticator: Authenticator {
                trust: Trust::of_bundles([Arc::new(bundle)]),
                algorithms: self.provider.signature_verification_algorithms,
            },
            expected: spiffe_id.clone(),
        };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| LinkError::Senseless(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.enable_sni = false;
        // A ticket would spare the certificate, and with it the look at the roots as they are now.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// The token, which the kubelet replaces from time to time.
    fn token(&self) -> Result<MetadataValue<Ascii>, LinkError> {
        let path = &self.settings.token;
        let text = files::read_text(path, files::Kind::up_to(LONGEST_TOKEN))
            .map_err(|error| LinkError::Token { path: path.clone(), error })?;
        let text = Zeroizing::new(text);
        let token = text.trim();
        if token.is_empty() {
            return Err(LinkError::NoToken(path.clone()));
        }
        let shown = Zeroizing::new(format!("Bearer {token}"));
        let mut value: MetadataValue<Ascii> =
            shown.parse().map_err(|_| LinkError::NoToken(path.clone()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

struct Connected {
    channel: Channel,
    number: u64,
    /// Nobody has used it before.
    is_new: bool,
}

/// Who leads, by a refusal.
enum Said {
    Nothing,
    NoLeader,
    Leader(SocketAddr),
}

fn leader(status: &Status) -> Said {
    if status.code() != Code::Unavailable {
        return Said::Nothing;
    }
    let Some(value) = status.metadata().get(LEADER) else {
        return Said::Nothing;
    };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed.map_or(Said::NoLeader, Said::Leader)
}

/// HTTP/2 on a connection. When that ends, it ends: another one needs another look at files.
async fn carry(stream: TlsStream<TcpStream>) -> Result<Channel, LinkError> {
    let mut stream = Some(TokioIo::new(stream));
    let once = service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    let endpoint = Endpoint::from_static("http://sheath-controller")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
        .keep_alive_while_idle(true);
    let connecting = endpoint.connect_with_connector(once);
    connecting.await.map_err(|error| LinkError::Senseless(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataMap;

    #[test]
    fn a_replica_that_does_not_lead_may_name_the_one_that_does() {
        let of = |code: Code, value: Option<&str>| {
            let mut metadata = MetadataMap::new();
            if let Some(value) = value {
                metadata.insert(LEADER, value.parse().unwrap());
            }
            leader(&Status::with_metadata(code, "", metadata))
        };
        let named = of(Code::Unavailable, Some("10.0.0.1:15443"));
        assert!(matches!(named, Said::Leader(leader) if leader.to_string() == "10.0.0.1:15443"));
        assert!(matches!(of(Code::Unavailable, Some("")), Said::NoLeader));
        assert!(matches!(of(Code::Unavailable, Some("host:1")), Said::NoLeader));
        assert!(matches!(of(Code::Unavailable, None), Said::Nothing));
        // Only whoever does not lead.
        assert!(matches!(of(Code::NotFound, Some("10.0.0.1:15443")), Said::Nothing));
    }

    #[test]
    fn the_token_is_shown_to_nobody_in_a_log() {
        let bearer = Bearer("Bearer secret".parse().unwrap());
        assert_eq!(format!("{bearer:?}"), "Bearer");
    }
}
