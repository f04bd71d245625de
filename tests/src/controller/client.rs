//! Whoever calls the controller, and as whom it likes. Nothing of it is the agent's code.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use socket2::{Domain, Socket, Type};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::service_fn;

use crate::netns::NetNs;

#[allow(clippy::all)]
mod api {
    include!(concat!(env!("OUT_DIR"), "/controller.rs"));
    pub use sheath::identities::v1::identities_client::IdentitiesClient;
    pub use sheath::identities::v1::{FollowRootsRequest, SignRequest};
}

/// What the controller says.
pub type Answer<T> = Result<T, Status>;

/// A certification request, and the key that it is for.
pub struct Csr {
    pub der: Vec<u8>,
    pub key: KeyPair,
}

impl Csr {
    /// With a name in it, which nobody should take seriously.
    pub fn new(name: Option<&str>) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            name.map(|name| SanType::URI(name.try_into().unwrap())).into_iter().collect();
        let der = params.serialize_request(&key).unwrap().der().to_vec();
        Self { der, key }
    }
}

/// A connection, and the token that is shown.
pub struct Caller {
    pub(super) runtime: Runtime,
    pub(super) channel: Channel,
    token: Option<String>,
    /// What the controller has shown.
    pub server: Vec<CertificateDer<'static>>,
}

impl Caller {
    /// Connects, whoever is there.
    ///
    /// # Errors
    /// If there is no TLS.
    pub fn connect(
        netns: &NetNs,
        address: SocketAddr,
        token: Option<&str>,
    ) -> anyhow::Result<Self> {
        let stream = netns.run(|| std::net::TcpStream::connect(address))?;
        Self::over(stream, token)
    }

    /// The same, from an address of its own.
    ///
    /// # Errors
    /// If there is no TLS.
    pub fn connect_from(
        source: IpAddr,
        netns: &NetNs,
        address: SocketAddr,
        token: Option<&str>,
    ) -> anyhow::Result<Self> {
        let stream = netns.run(|| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            socket.connect(&address.into())?;
            std::io::Result::Ok(socket.into())
        })?;
        Self::over(stream, token)
    }

    fn over(stream: std::net::TcpStream, token: Option<&str>) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let seen = Arc::new(Seen::default());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(seen.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let channel = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let name = ServerName::try_from("anybody")?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            let mut stream = Some(TokioIo::new(stream));
            let once = service_fn(move |_| {
                let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
                std::future::ready(stream.map_err(std::io::Error::from))
            });
            let channel = Endpoint::from_static("http://it").connect_with_connector(once).await?;
            anyhow::Ok(channel)
        })?;
        let server = seen.0.lock().unwrap().clone();
        Ok(Self { runtime, channel, token: token.map(str::to_owned), server })
    }

    /// From now on another token is shown.
    pub fn show(&mut self, token: &str) {
        self.token = Some(token.to_owned());
    }

    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_secs(20));
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    /// Asks for an SVID of a pod: a chain in DER.
    ///
    /// # Errors
    /// What the controller says.
    pub fn sign(&self, pod: &str, csr: &[u8]) -> Answer<Vec<CertificateDer<'static>>> {
        let request = api::SignRequest { pod_uid: pod.to_owned(), csr: csr.to_vec() };
        let mut client = api::IdentitiesClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.sign(self.request(request)))?;
        Ok(answer.into_inner().chain.into_iter().map(CertificateDer::from).collect())
    }

    /// The first roots that the controller tells.
    ///
    /// # Errors
    /// What the controller says.
    pub fn roots(&self) -> Answer<Vec<CertificateDer<'static>>> {
        let mut client = api::IdentitiesClient::new(self.channel.clone());
        self.runtime.block_on(async {
            let request = self.request(api::FollowRootsRequest {});
            let mut stream = client.follow_roots(request).await?.into_inner();
            let roots = stream.message().await?.unwrap_or_default();
            Ok(roots.certificates.into_iter().map(CertificateDer::from).collect())
        })
    }

    /// Follows the roots until the controller ends the stream; how many times it has told them.
    ///
    /// # Errors
    /// What the controller says.
    pub fn follow_to_the_end(&self) -> Answer<usize> {
        let mut client = api::IdentitiesClient::new(self.channel.clone());
        self.runtime.block_on(async {
            let mut request = self.request(api::FollowRootsRequest {});
            request.set_timeout(Duration::from_secs(60));
            let mut stream = client.follow_roots(request).await?.into_inner();
            let mut told = 0;
            while stream.message().await?.is_some() {
                told += 1;
            }
            Ok(told)
        })
    }
}

/// Takes any certificate.
#[derive(Debug, Default)]
struct Seen(Mutex<Vec<CertificateDer<'static>>>);

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = std::iter::once(leaf).chain(intermediates);
        *self.0.lock().unwrap() = all.map(|one| one.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
