//! The tls stage: mutual TLS 1.3 with a workload's SVID, and the verdict on who the peer is.
//!
//! The wire carries the application's bytes as one TLS stream on the application's own port. Agents offer the
//! ALPN protocol [`ALPN`], which says so; a peer that offers none is taken to mean the same.

mod accept;
pub mod client_hello;
mod contexts;
mod verifier;

use std::io;
use std::time::Duration;

use rustls::CommonState;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::spiffe::{Authorizer, SpiffeId, spiffe_id_of};

use verifier::Refusal;

pub use accept::{Greeting, accept, greet};
pub use contexts::{Contexts, crypto_provider};

/// One raw byte stream for each session. A later protocol with a framing of its own will have another name.
pub const ALPN: &[u8] = b"sheath/0";

/// A finished handshake with a peer that is who it should be.
#[derive(Debug)]
pub struct Session {
    pub stream: tokio_rustls::TlsStream<TcpStream>,
    pub peer: SpiffeId,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("no TLS handshake within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// We refused the peer.
    #[error("peer refused: {reason}")]
    Refused {
        /// Who it claimed to be, if its certificate says so at all.
        peer: Option<SpiffeId>,
        reason: String,
    },
    /// The peer refused us, or does not speak TLS as it should.
    #[error("TLS handshake: {0}")]
    Protocol(rustls::Error),
    #[error("TLS handshake: {0}")]
    Io(io::Error),
    #[error("the peer showed no certificate that says who it is")]
    Anonymous,
}

impl TlsError {
    /// Who the peer claimed to be, where that is known.
    #[must_use]
    pub fn peer(&self) -> Option<&SpiffeId> {
        match self {
            Self::Refused { peer, .. } => peer.as_ref(),
            _ => None,
        }
    }

    /// The handshake's own error, without the wrapping that I/O errors put round it.
    fn handshake(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(rustls::Error::InvalidCertificate(error)) => Self::refused(&error),
            Ok(error) => Self::Protocol(error),
            Err(error) => Self::Io(error),
        }
    }

    /// In our verifier's own words, where it was the one that refused.
    fn refused(error: &rustls::CertificateError) -> Self {
        let refusal = match error {
            rustls::CertificateError::Other(other) => other.0.downcast_ref::<Refusal>(),
            _ => None,
        };
        Self::Refused {
            peer: refusal.and_then(Refusal::peer).cloned(),
            reason: refusal.map_or_else(|| error.to_string(), Refusal::to_string),
        }
    }
}

/// Opens a session as the client of a flow.
pub async fn connect(
    wire: TcpStream,
    contexts: &Contexts,
    expected: Authorizer,
    limit: Duration,
) -> Result<Session, TlsError> {
    let address = wire.peer_addr().map_err(TlsError::Io)?;
    let connector = TlsConnector::from(contexts.client(expected));
    // An address as server name: no SNI is sent, and names in the certificate other than the SPIFFE ID mean
    // nothing.
    let handshake = connector.connect(address.ip().into(), wire);
    let stream = tokio::time::timeout(limit, handshake)
        .await
        .map_err(|_| TlsError::Timeout(limit))?
        .map_err(TlsError::handshake)?;
    Session::new(stream.into())
}

impl Session {
    /// The identity is read from the certificate that the handshake has verified.
    fn new(stream: tokio_rustls::TlsStream<TcpStream>) -> Result<Self, TlsError> {
        let (_, connection) = stream.get_ref();
        let peer = peer_id(connection).ok_or(TlsError::Anonymous)?;
        Ok(Self { stream, peer })
    }
}

fn peer_id(connection: &CommonState) -> Option<SpiffeId> {
    let leaf = connection.peer_certificates()?.first()?;
    spiffe_id_of(leaf).ok()
}

#[cfg(test)]
mod tests;
