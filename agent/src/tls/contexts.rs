//! TLS configurations of one workload, made once for each snapshot of its identity.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};

use super::ALPN;
use super::verifier::PeerVerifier;

use crate::spiffe::{Authorizer, TrustBundle};

/// Cipher suites and key exchange groups in order of preference. TLS 1.3 only; the hybrid group resists an
/// attacker who records today and has a quantum computer later.
#[must_use]
pub fn crypto_provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// How a workload speaks TLS.
#[derive(Debug)]
pub struct Contexts {
    client: ClientConfig,
    /// For clients that offer [`ALPN`].
    agent_server: Arc<ServerConfig>,
    /// For clients that offer nothing.
    plain_server: Arc<ServerConfig>,
    verifier: PeerVerifier,
}

impl Contexts {
    /// `callers` are those who may connect to the workload.
    ///
    /// # Errors
    /// If the provider has no TLS 1.3.
    pub fn new(
        provider: Arc<CryptoProvider>,
        key: Arc<CertifiedKey>,
        bundle: Arc<TrustBundle>,
        callers: Authorizer,
    ) -> Result<Self, rustls::Error> {
        let certificate = Arc::new(SingleCertAndKey::from(key));
        let verifier =
            PeerVerifier::new(bundle, callers, provider.signature_verification_algorithms);

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier.clone()))
            .with_client_cert_resolver(certificate.clone());
        client.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the peer's certificate.
        client.resumption = Resumption::disabled();

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier.clone()))
            .with_cert_resolver(certificate);
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let plain_server = Arc::new(server.clone());
        server.alpn_protocols = vec![ALPN.to_vec()];

        Ok(Self { client, agent_server: Arc::new(server), plain_server, verifier })
    }

    /// For one connection to where one of `expected` must answer.
    pub(super) fn client(&self, expected: Authorizer) -> Arc<ClientConfig> {
        let mut config = self.client.clone();
        config.dangerous().set_certificate_verifier(Arc::new(self.verifier.expecting(expected)));
        Arc::new(config)
    }

    /// For a client that does or does not offer [`ALPN`].
    pub(super) fn server(&self, offers_alpn: bool) -> Arc<ServerConfig> {
        if offers_alpn { self.agent_server.clone() } else { self.plain_server.clone() }
    }
}
