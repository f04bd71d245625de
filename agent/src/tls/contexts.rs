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

use super::key_log::OwnLog;
use super::target::{Shown, Target};
use super::verifier::{ClientVerifier, ServerVerifier};
use super::{ExternalPeer, Profile, TlsError, encounter};
use crate::trust::{Expectation, Judge, Trust};
use crate::wire::modes::agent_protocols;
use crate::wire::words;

/// Between agents.
static AGENT_VERSIONS: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// What a workload accepts from the network.
#[derive(Clone, Debug, Default)]
pub struct Inbound {
    /// Who may call.
    pub callers: Expectation,
    /// For clients without an agent.
    pub standard: Option<InboundTls>,
}

impl Inbound {
    /// What a client must prove, by the way in which it calls.
    #[must_use]
    pub fn expectation(&self, as_agent: bool) -> Expectation {
        match &self.standard {
            Some(standard) if !as_agent => self.callers.or(&standard.callers),
            _ => self.callers.clone(),
        }
    }
}

/// TLS for clients without an agent.
#[derive(Clone, Debug)]
pub struct InboundTls {
    pub profile: Profile,
    pub certificate: Shown,
    /// Who may call, besides those who may call anyway.
    pub callers: Expectation,
}

/// How a workload speaks TLS.
#[derive(Debug)]
pub struct Contexts {
    svid: Arc<CertifiedKey>,
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
    /// Towards agents.
    client: Arc<ClientConfig>,
    /// Towards external peers that have been met. Locked for a lookup alone.
    external_clients: Mutex<HashMap<ByPlace, Arc<ClientConfig>>>,
    /// For clients that offer a protocol of agents.
    agent_server: Acceptance,
    /// For all others.
    standard_server: Result<Acceptance, String>,
    protocols: Vec<Vec<u8>>,
}

/// One side of a handshake: how to shake hands, and in that how to judge the peer.
#[derive(Clone, Debug)]
pub(super) struct Acceptance {
    pub config: Arc<ServerConfig>,
    /// The records of its sessions are not ours.
    pub needs_library: bool,
}

/// The other side of a handshake.
pub(super) struct Approach {
    pub config: Arc<ClientConfig>,
    pub judge: Judge,
    pub server_name: Option<ServerName<'static>>,
    /// The records of the session are not ours.
    pub needs_library: bool,
}

/// Shows a certificate to servers that ask for one.
#[derive(Debug)]
struct ShownOnRequest(SingleCertAndKey);

impl ResolvesClientCert for ShownOnRequest {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let found = ResolvesClientCert::resolve(&self.0, root_hint_subjects, schemes)?;
        if found.key.choose_scheme(schemes).is_some() {
            encounter::asked();
        }
        Some(found)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Contexts {
    /// # Errors
    /// If a configuration does not fit together, which its parsing should have shown.
    pub fn new(
        provider: Arc<CryptoProvider>,
        svid: Arc<CertifiedKey>,
        trust: Trust,
        inbound: &Inbound,
    ) -> Result<Self, rustls::Error> {
        let algorithms = provider.signature_verification_algorithms;
        let judge =
            |expectation: Expectation| Judge { trust: trust.clone(), expectation, algorithms };
        let alpn = agent_protocols().map(<[u8]>::to_vec).collect();
        let profile = Profile { provider, versions: AGENT_VERSIONS.to_vec(), alpn };
        let client = client_config(&profile, algorithms, Some(&svid))?.into();
        let agent_server = Acceptance::new(&profile, judge(inbound.callers.clone()), &svid)?;
        let without_alpn = Profile { alpn: Vec::new(), ..profile };
        let standard_server = match &inbound.standard {
            None => Acceptance::new(&without_alpn, judge(inbound.callers.clone()), &svid)
                .map_err(|error| words::handshake(&error)),
            Some(standard) => match standard.certificate.key(&svid) {
                Ok(key) => {
                    Acceptance::new(&standard.profile, judge(inbound.expectation(false)), &key)
                        .map_err(|error| words::handshake(&error))
                }
                Err(reason) => Err(reason),
            },
        };
        Ok(Self {
            protocols: inbound
                .standard
                .as_ref()
                .map_or_else(Vec::new, |standard| standard.profile.alpn.clone()),
            svid,
            trust,
            algorithms,
            client,
            external_clients: Mutex::default(),
            agent_server,
            standard_server,
        })
    }

    /// What is believed of whom.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The judge of peers that must meet an expectation.
    #[must_use]
    pub fn judge(&self, expectation: Expectation) -> Judge {
        Judge { trust: self.trust.clone(), expectation, algorithms: self.algorithms }
    }

    /// Protocols of clients without an agent that are ours to terminate.
    #[must_use]
    pub fn protocols(&self) -> &[Vec<u8>] {
        &self.protocols
    }

    /// For one connection to `target`.
    pub(super) fn client(&self, target: &Target) -> Result<Approach, TlsError> {
        let judge = self.judge(target.expectation().clone());
        Ok(match target {
            // Without a name no SNI is sent, and names in the certificate other than the SPIFFE ID mean nothing.
            Target::Agent(_) => Approach {
                config: self.client.clone(),
                judge,
                server_name: None,
                needs_library: false,
            },
            Target::External { peer, server_name } => Approach {
                config: self.external_client(peer)?,
                judge,
                server_name: server_name.clone().map(ServerName::DnsName),
                needs_library: peer.profile.may_be_older(),
            },
        })
    }

    /// Made when an external peer is met for the first time, as most workloads never meet most of them.
    fn external_client(&self, peer: &Arc<ExternalPeer>) -> Result<Arc<ClientConfig>, TlsError> {
        let known = || self.external_clients.lock().unwrap_or_else(PoisonError::into_inner);
        let place = ByPlace(peer.clone());
        if let Some(config) = known().get(&place) {
            return Ok(config.clone());
        }
        let key = match &peer.certificate {
            Shown::Nothing => None,
            certificate => Some(certificate.key(&self.svid).map_err(TlsError::NoCertificate)?),
        };
        let config = client_config(&peer.profile, self.algorithms, key.as_ref());
        let config = Arc::new(config.map_err(TlsError::Protocol)?);
        known().insert(place, config.clone());
        Ok(config)
    }

    /// For a client that does or does not offer a protocol of agents.
    pub(super) fn server(&self, offers_alpn: bool) -> Result<&Acceptance, TlsError> {
        if offers_alpn {
            return Ok(&self.agent_server);
        }
        self.standard_server.as_ref().map_err(|reason| TlsError::NoCertificate(reason.clone()))
    }
}

impl Acceptance {
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
        config.key_log = Arc::new(OwnLog);
        config.alpn_protocols.clone_from(&profile.alpn);
        Ok(Self { config: Arc::new(config), needs_library: profile.may_be_older() })
    }
}

impl Shown {
    fn key(&self, svid: &Arc<CertifiedKey>) -> Result<Arc<CertifiedKey>, String> {
        match self {
            Self::Svid => Ok(svid.clone()),
            Self::Nothing => Err("a server has to show a certificate".to_owned()),
            Self::Named { key: Some(key), .. } => Ok(key.clone()),
            Self::Named { context, key: None } => {
                Err(format!("the certificate of the TLS context `{context}` could not be read"))
            }
        }
    }
}

/// An external peer of one policy: another policy's is another, even if it says the same.
#[derive(Debug)]
struct ByPlace(Arc<ExternalPeer>);

impl PartialEq for ByPlace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ByPlace {}

impl Hash for ByPlace {
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
            builder.with_client_cert_resolver(Arc::new(ShownOnRequest(key.clone().into())))
        }
    };
    config.alpn_protocols.clone_from(&profile.alpn);
    // A resumed session would skip the peer's certificate.
    config.resumption = Resumption::disabled();
    // Our record layer takes over after the handshake.
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(OwnLog);
    Ok(config)
}
