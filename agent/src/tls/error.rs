//! Why a handshake failed.

use std::io;
use std::time::Duration;

use super::SetupError;
use super::verifier::PeerRefused;
use crate::flow::PeerId;
use crate::peer::Refusal;
use crate::wire::words;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("no TLS handshake within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The peer has not proved who it is, or is not allowed there.
    #[error("peer refused: {0}")]
    Refused(Box<Refusal>),
    /// Its certificate cannot be used, whoever it is.
    #[error("peer refused: {}", words::certificate(.0))]
    Certificate(rustls::CertificateError),
    /// The peer refused us, or does not speak TLS as it should.
    #[error("TLS handshake: {}", words::handshake(.0))]
    Protocol(rustls::Error),
    #[error("TLS handshake: {}", words::handshake_io(.0))]
    Io(io::Error),
    #[error("the peer showed no certificate that proves who it is")]
    Anonymous,
    /// Where both sides must know each other.
    #[error("peer refused: the server did not request a client certificate, so it serves anybody")]
    NotMutual,
    /// Our side lacks something, such as a certificate.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

impl TlsError {
    /// Why the peer was refused, if that is why the handshake failed.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Who the peer is, or claims to be, where that is known.
    #[must_use]
    pub fn peer(&self) -> Option<PeerId> {
        self.refusal().and_then(Refusal::peer)
    }

    pub(super) fn handshake(error: rustls::Error) -> Self {
        tracing::debug!(%error, "TLS handshake");
        match error {
            rustls::Error::InvalidCertificate(error) => Self::refused(error),
            error => Self::Protocol(error),
        }
    }

    /// The handshake's own error, without the wrapping that I/O errors put round it.
    pub(super) fn of_stream(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::handshake(error),
            Err(error) => Self::Io(error),
        }
    }

    /// Unwraps the refusal of our own verifier.
    fn refused(error: rustls::CertificateError) -> Self {
        let refused = match &error {
            rustls::CertificateError::Other(other) => other.0.downcast_ref::<PeerRefused>(),
            _ => None,
        };
        match refused {
            Some(PeerRefused(refusal)) => Self::Refused(Box::new(refusal.clone())),
            None => Self::Certificate(error),
        }
    }
}
