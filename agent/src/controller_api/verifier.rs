//! The controller's certificate is judged as any peer's: by the roots of the trust domain, and by its SPIFFE ID.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::flow::Role;
use crate::spiffe::SpiffeId;
use crate::trust::{AuthenticationError, Authenticator, Method, PeerChain};

/// Verifies that a server is the controller.
#[derive(Debug)]
pub struct ControllerVerifier {
    pub authenticator: Authenticator,
    pub expected: SpiffeId,
}

/// Why a server is not the controller.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotTheController {
    #[error(transparent)]
    Unproved(#[from] AuthenticationError),
    #[error("it proves to be {found}, and controller.spiffeId is {expected}")]
    OtherId { found: SpiffeId, expected: SpiffeId },
}

impl ControllerVerifier {
    fn judge(&self, chain: PeerChain<'_>, now: UnixTime) -> Result<(), NotTheController> {
        let candidate = self.authenticator.candidate(chain, Role::Server, now)?;
        let identity = candidate.authenticate(Method::Svid)?;
        match identity.spiffe_id() {
            Some(found) if *found == self.expected => Ok(()),
            Some(found) => Err(NotTheController::OtherId {
                found: found.clone(),
                expected: self.expected.clone(),
            }),
            None => Err(AuthenticationError::NoCertificate.into()),
        }
    }
}

impl ServerCertVerifier for ControllerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.judge(PeerChain { leaf, intermediates }, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.authenticator.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.authenticator.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authenticator.algorithms.supported_schemes()
    }
}
