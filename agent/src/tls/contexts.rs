//! TLS configurations of one workload, made once for each snapshot of its identity.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::ServerName;

use super::target::{Shown, Target};
use super::verifier::PeerVerifier;
use super::{Profile, TlsError, agent_protocols};
use crate::trust::{Expectation, Judge, Trust};

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
    /// Towards agents; the verifier and the certificate are others for each connection.
    client: ClientConfig,
    /// For clients that offer a protocol of agents.
    agent_server: Acceptance,
    /// For all others.
    standard_server: Result<Acceptance, String>,
    protocols: Vec<Vec<u8>>,
}

/// One side of a handshake: how to shake hands, and how to judge the peer.
#[derive(Clone, Debug)]
pub(super) struct Acceptance {
    pub config: Arc<ServerConfig>,
    pub judge: Judge,
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
    /// `None` if our side means to show nothing.
    pub shown: Option<Arc<ShownOnRequest>>,
}

/// A client's certificate, and whether the server has asked for one.
#[derive(Debug)]
pub(super) struct ShownOnRequest {
    certificate: SingleCertAndKey,
    was_shown: AtomicBool,
}

impl ShownOnRequest {
    fn new(key: &Arc<CertifiedKey>) -> Arc<Self> {
        let certificate = SingleCertAndKey::from(key.clone());
        Arc::new(Self { certificate, was_shown: AtomicBool::new(false) })
    }

    /// True if the server knows who we are: a server that does not ask never learns it.
    pub fn was_shown(&self) -> bool {
        self.was_shown.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for ShownOnRequest {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let found = ResolvesClientCert::resolve(&self.certificate, root_hint_subjects, schemes)?;
        if found.key.choose_scheme(schemes).is_some() {
            self.was_shown.store(true, Ordering::Relaxed);
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
        let profile =
            Profile { provider, versions: AGENT_VERSIONS.to_vec(), alpn: agent_protocols() };
        let client = client_config(&profile, judge(Expectation::default()), None)?;
        let agent_server = Acceptance::new(&profile, judge(inbound.callers.clone()), &svid)?;
        let without_alpn = Profile { alpn: Vec::new(), ..profile };
        let standard_server = match &inbound.standard {
            None => Acceptance::new(&without_alpn, judge(inbound.callers.clone()), &svid),
            Some(standard) => match standard.certificate.key(&svid) {
                Ok(key) => {
                    Acceptance::new(&standard.profile, judge(inbound.expectation(false)), &key)
                }
                Err(reason) => Err(rustls::Error::General(reason)),
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
            agent_server,
            standard_server: standard_server.map_err(|error| error.to_string()),
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
        match target {
            Target::Agent(_) => {
                let mut config = self.client.clone();
                let verifier = Arc::new(PeerVerifier(judge.clone()));
                config.dangerous().set_certificate_verifier(verifier);
                let shown = ShownOnRequest::new(&self.svid);
                config.client_auth_cert_resolver = shown.clone();
                // Without a name no SNI is sent, and names in the certificate other than the SPIFFE ID mean
                // nothing.
                let shown = Some(shown);
                Ok(Approach {
                    config: Arc::new(config),
                    judge,
                    server_name: None,
                    needs_library: false,
                    shown,
                })
            }
            Target::External { peer, server_name } => {
                let shown = match &peer.certificate {
                    Shown::Nothing => None,
                    certificate => {
                        let key = certificate.key(&self.svid).map_err(TlsError::NoCertificate)?;
                        Some(ShownOnRequest::new(&key))
                    }
                };
                let config = client_config(&peer.profile, judge.clone(), shown.clone())
                    .map_err(TlsError::Protocol)?;
                let server_name = server_name.clone().map(ServerName::DnsName);
                let needs_library = peer.profile.may_be_older();
                Ok(Approach { config: Arc::new(config), judge, server_name, needs_library, shown })
            }
        }
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
            .with_client_cert_verifier(Arc::new(PeerVerifier(judge.clone())))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.enable_secret_extraction = true;
        config.alpn_protocols.clone_from(&profile.alpn);
        Ok(Self { config: Arc::new(config), judge, needs_library: profile.may_be_older() })
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

fn client_config(
    profile: &Profile,
    judge: Judge,
    certificate: Option<Arc<ShownOnRequest>>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(profile.provider.clone())
        .with_protocol_versions(&profile.versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier(judge)));
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => builder.with_client_cert_resolver(certificate),
    };
    config.alpn_protocols.clone_from(&profile.alpn);
    // A resumed session would skip the peer's certificate.
    config.resumption = Resumption::disabled();
    // Our record layer takes over after the handshake.
    config.enable_secret_extraction = true;
    Ok(config)
}
