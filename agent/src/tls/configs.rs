//! TLS configurations of one workload, made once for each snapshot of its identity.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::ServerName;

use super::key_log::SecretLog;
use super::verifier::{ClientVerifier, ServerVerifier};
use super::{TlsError, handshake_context};
use crate::peer::{Expectation, ExternalPeer, Inbound, Judge, NoCertificate, Profile, Target};
use crate::trust::{Authenticator, Trust};
use crate::wire::modes::agent_protocols;
use crate::wire::words;

/// Between agents.
static AGENT_VERSIONS: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// Why one side of TLS cannot be set up.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    NoCertificate(#[from] NoCertificate),
    #[error("TLS cannot be set up: {}", words::handshake(.0))]
    Unusable(#[from] rustls::Error),
}

/// How a workload speaks TLS with all its peers.
#[derive(Debug)]
pub struct TlsConfigs {
    svid: Arc<CertifiedKey>,
    authenticator: Authenticator,
    /// Towards agents.
    client: Arc<ClientConfig>,
    /// Towards external peers that have been dialled. Locked for a lookup alone.
    external_clients: Mutex<HashMap<SamePeer, Arc<ClientConfig>>>,
    /// For clients that offer a protocol of agents.
    agent_server: ServerSetup,
    /// For all others.
    standard_server: Result<ServerSetup, SetupError>,
    protocols: Vec<Vec<u8>>,
}

/// How to accept a client, and to judge it.
#[derive(Clone, Debug)]
pub(super) struct ServerSetup {
    pub config: Arc<ServerConfig>,
    /// TLS 1.2 may be agreed on, and its records are left to the TLS library.
    pub needs_library: bool,
}

/// How to reach a server, and to judge it.
pub(super) struct ClientSetup {
    pub config: Arc<ClientConfig>,
    pub judge: Judge,
    pub server_name: Option<ServerName<'static>>,
    /// TLS 1.2 may be agreed on, and its records are left to the TLS library.
    pub needs_library: bool,
}

/// Presents a certificate to servers that request one.
#[derive(Debug)]
struct PresentedOnRequest(SingleCertAndKey);

impl ResolvesClientCert for PresentedOnRequest {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let found = ResolvesClientCert::resolve(&self.0, root_hint_subjects, schemes)?;
        if found.key.choose_scheme(schemes).is_some() {
            handshake_context::certificate_requested();
        }
        Some(found)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl TlsConfigs {
    /// # Errors
    /// If a configuration does not fit together, which its parsing should have shown.
    pub fn new(
        provider: Arc<CryptoProvider>,
        svid: Arc<CertifiedKey>,
        trust: Trust,
        inbound: &Inbound,
    ) -> Result<Self, rustls::Error> {
        let algorithms = provider.signature_verification_algorithms;
        let authenticator = Authenticator { trust, algorithms };
        let judge = |expectation| Judge { authenticator: authenticator.clone(), expectation };
        let alpn = agent_protocols().map(<[u8]>::to_vec).collect();
        let profile = Profile { provider, versions: AGENT_VERSIONS.to_vec(), alpn };
        let client = client_config(&profile, algorithms, Some(&svid))?.into();
        let agent_server = ServerSetup::new(&profile, judge(inbound.callers.clone()), &svid)?;
        let without_alpn = Profile { alpn: Vec::new(), ..profile };
        let standard_server = match &inbound.standard {
            None => ServerSetup::new(&without_alpn, judge(inbound.callers.clone()), &svid)
                .map_err(SetupError::from),
            Some(standard) => {
                standard.certificate.of_server(&svid).map_err(SetupError::from).and_then(|key| {
                    let judge = judge(inbound.expectation(false));
                    Ok(ServerSetup::new(&standard.profile, judge, &key)?)
                })
            }
        };
        Ok(Self {
            protocols: inbound
                .standard
                .as_ref()
                .map_or_else(Vec::new, |standard| standard.profile.alpn.clone()),
            svid,
            authenticator,
            client,
            external_clients: Mutex::default(),
            agent_server,
            standard_server,
        })
    }

    /// What the workload trusts.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.authenticator.trust
    }

    /// The judge of peers, where these are expected.
    #[must_use]
    pub fn judge(&self, expectation: Expectation) -> Judge {
        Judge { authenticator: self.authenticator.clone(), expectation }
    }

    /// Protocols of clients without an agent that are ours to terminate.
    #[must_use]
    pub fn protocols(&self) -> &[Vec<u8>] {
        &self.protocols
    }

    /// For one connection to `target`.
    pub(super) fn client(&self, target: &Target) -> Result<ClientSetup, TlsError> {
        let judge = self.judge(target.expectation().clone());
        Ok(match target {
            // Without a name no SNI is sent, and names in the certificate other than the SPIFFE ID mean nothing.
            Target::Agent(_) | Target::Pod { .. } => ClientSetup {
                config: self.client.clone(),
                judge,
                server_name: None,
                needs_library: false,
            },
            Target::External { peer, server_name } => ClientSetup {
                config: self.external_client(peer)?,
                judge,
                server_name: server_name.clone().map(ServerName::DnsName),
                needs_library: peer.profile.may_be_older(),
            },
        })
    }

    /// Made when an external peer is dialled for the first time: most workloads never dial most of them.
    fn external_client(&self, peer: &Arc<ExternalPeer>) -> Result<Arc<ClientConfig>, TlsError> {
        let known = || self.external_clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = SamePeer(peer.clone());
        if let Some(config) = known().get(&key) {
            return Ok(config.clone());
        }
        let certificate = peer.certificate.of_client(&self.svid).map_err(SetupError::from)?;
        let algorithms = self.authenticator.algorithms;
        let config = client_config(&peer.profile, algorithms, certificate.as_ref());
        let config = Arc::new(config.map_err(SetupError::from)?);
        known().insert(key, config.clone());
        Ok(config)
    }

    /// For a client that does or does not offer a protocol of agents.
    pub(super) fn server(&self, offers_alpn: bool) -> Result<&ServerSetup, TlsError> {
        if offers_alpn {
            return Ok(&self.agent_server);
        }
        self.standard_server.as_ref().map_err(|error| TlsError::Setup(error.clone()))
    }
}

impl ServerSetup {
    fn new(
        profile: &Profile,
        judge: Judge,
        key: &Arc<CertifiedKey>,
    ) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(profile.provider.clone())
            .with_protocol_versions(&profile.versions)?
            .with_client_cert_verifier(Arc::new(ClientVerifier(judge)))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(SecretLog);
        config.alpn_protocols.clone_from(&profile.alpn);
        Ok(Self { config: Arc::new(config), needs_library: profile.may_be_older() })
    }
}

/// An external peer, known by where it is in memory: another policy's is another peer, even if it says the same.
#[derive(Debug)]
struct SamePeer(Arc<ExternalPeer>);

impl PartialEq for SamePeer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SamePeer {}

impl Hash for SamePeer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

fn client_config(
    profile: &Profile,
    algorithms: WebPkiSupportedAlgorithms,
    key: Option<&Arc<CertifiedKey>>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(profile.provider.clone())
        .with_protocol_versions(&profile.versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier(algorithms)));
    let mut config = match key {
        None => builder.with_no_client_auth(),
        Some(key) => {
            builder.with_client_cert_resolver(Arc::new(PresentedOnRequest(key.clone().into())))
        }
    };
    config.alpn_protocols.clone_from(&profile.alpn);
    // A resumed session would skip the peer's certificate.
    config.resumption = Resumption::disabled();
    // Our record layer takes over after the handshake.
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(SecretLog);
    Ok(config)
}
