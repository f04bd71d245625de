//! The judgement on a peer's certificate, the same in both directions: it must chain to the bundle of its own
//! trust domain, keep the rules of an X.509-SVID, and name somebody who is expected.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::spiffe::{
    Authorizer, LeafError, SpiffeId, TrustBundle, TrustDomain, Unauthorized, spiffe_id_of,
};

/// The rule a peer breaks.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error("{id} is of a trust domain that {domain} has no bundle for")]
    ForeignDomain { id: SpiffeId, domain: TrustDomain },
    #[error("the certificate of {id} does not chain to the bundle of its trust domain: {error}")]
    Chain { id: SpiffeId, error: webpki::Error },
    #[error(transparent)]
    Unauthorized(#[from] Unauthorized),
}

impl Refusal {
    /// Who the peer claimed to be.
    pub fn peer(&self) -> Option<&SpiffeId> {
        match self {
            Self::Leaf(_) => None,
            Self::ForeignDomain { id, .. } | Self::Chain { id, .. } => Some(id),
            Self::Unauthorized(Unauthorized { found }) => Some(found),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

/// Verifies peers for one workload and one set of expected identities.
#[derive(Clone, Debug)]
pub struct PeerVerifier {
    bundle: Arc<TrustBundle>,
    expected: Authorizer,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    pub fn new(
        bundle: Arc<TrustBundle>,
        expected: Authorizer,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { bundle, expected, algorithms }
    }

    /// The same verifier with other expectations.
    pub fn expecting(&self, expected: Authorizer) -> Self {
        Self { expected, ..self.clone() }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Refusal> {
        let id = spiffe_id_of(leaf)?;
        if id.trust_domain() != self.bundle.trust_domain() {
            return Err(Refusal::ForeignDomain { id, domain: self.bundle.trust_domain().clone() });
        }
        let certificate = match EndEntityCert::try_from(leaf) {
            Ok(certificate) => certificate,
            Err(error) => return Err(Refusal::Chain { id, error }),
        };
        let chain = certificate.verify_for_usage(
            self.algorithms.all,
            self.bundle.anchors(),
            intermediates,
            now,
            usage,
            None,
            None,
        );
        if let Err(error) = chain {
            return Err(Refusal::Chain { id, error });
        }
        Ok(self.expected.authorize(&id)?)
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

/// TLS 1.2 is not offered; this is never reached.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
