//! Why there is no session.

use std::io;
use std::time::Duration;

use super::SetupError;
use super::verifier::Refused;
use crate::flow::PeerId;
use crate::peer::Refusal;
use crate::wire::words;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("no TLS handshake within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The peer has not proved who it is, or may not be there.
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
    #[error("the peer showed no certificate that says who it is")]
    Anonymous,
    /// Where both sides must know each other.
    #[error("peer refused: the server did not request a client certificate, so it serves anybody")]
    NotMutual,
    /// Our side has not what it takes.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

impl TlsError {
    /// Why the peer is not let through, if that is why there is no session.
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

    /// What our verifier has refused comes out as it went in.
    fn refused(error: rustls::CertificateError) -> Self {
        let refused = match &error {
            rustls::CertificateError::Other(other) => other.0.downcast_ref::<Refused>(),
            _ => None,
        };
        match refused {
            Some(Refused(refusal)) => Self::Refused(Box::new(refusal.clone())),
            None => Self::Certificate(error),
        }
    }
}
