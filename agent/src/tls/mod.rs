//! The tls stage: mutual TLS with a workload's certificate, and the verdict on who the peer is.
//!
//! The wire carries the application's bytes as TLS on the application's own port. Agents agree on [`ALPN_FLOWS`],
//! with which a session carries flow after flow; with everybody else, the bytes of one flow are all there is.

mod accept;
mod chains;
pub mod client_hello;
mod contexts;
mod encounter;
mod handshake;
mod key_log;
mod library;
mod profile;
mod session;
mod stream;
mod target;
mod verifier;
mod words;

use std::io;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use crate::shares::Share;
use crate::trust::{PeerId, Refusal, Role};

use verifier::Refused;

pub use accept::{Greeting, accept, greet};
pub use contexts::{Contexts, Inbound, InboundTls};
pub use profile::{Choice, Profile, Version, crypto_provider};
pub use session::{Content, Negotiated, PeerCertificates, Proof, Session, Stream};
pub use stream::{Prefix, Received, RecordStream, SealFromError, StreamError};
pub use target::{ExternalPeer, Shown, Target};

/// Flow after flow in one session, as [`crate::framing`] has it.
pub const ALPN_FLOWS: &[u8] = b"sheath/1";
/// One flow for each session, and nothing but its bytes.
pub const ALPN_BYTES: &[u8] = b"sheath/0";

pub use words::words;

/// What agents offer, in order of preference.
fn agent_protocols() -> Vec<Vec<u8>> {
    vec![ALPN_FLOWS.to_vec(), ALPN_BYTES.to_vec()]
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
        peer: Option<PeerId>,
        reason: String,
    },
    /// The peer refused us, or does not speak TLS as it should.
    #[error("TLS handshake: {}", words::words(.0))]
    Protocol(rustls::Error),
    #[error("TLS handshake: {}", words::io_words(.0))]
    Io(io::Error),
    #[error("the peer showed no certificate that says who it is")]
    Anonymous,
    /// Where both sides must know each other.
    #[error("peer refused: the server did not request a client certificate, so it serves anybody")]
    NotMutual,
    #[error("{0}")]
    NoCertificate(String),
}

impl TlsError {
    /// Who the peer claimed to be, where that is known.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerId> {
        match self {
            Self::Refused { peer, .. } => peer.as_ref(),
            _ => None,
        }
    }

    fn handshake(error: rustls::Error) -> Self {
        tracing::debug!(%error, "TLS handshake");
        match error {
            rustls::Error::InvalidCertificate(error) => Self::refused(&error),
            error => Self::Protocol(error),
        }
    }

    /// The handshake's own error, without the wrapping that I/O errors put round it.
    fn shaking(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::handshake(error),
            Err(error) => Self::Io(error),
        }
    }

    /// In our verifier's own words, where it was the one that refused.
    fn refused(error: &rustls::CertificateError) -> Self {
        let refused = match error {
            rustls::CertificateError::Other(other) => other.0.downcast_ref::<Refused>(),
            _ => None,
        };
        match refused {
            Some(Refused(refusal)) => refusal.into(),
            None => Self::Refused { peer: None, reason: words::certificate(error).to_owned() },
        }
    }
}

impl From<&Refusal> for TlsError {
    fn from(refusal: &Refusal) -> Self {
        Self::Refused { peer: refusal.peer(), reason: refusal.to_string() }
    }
}

/// Opens a session as the client of a flow.
pub async fn connect(
    wire: TcpStream,
    contexts: &Contexts,
    target: &Target,
    limit: Duration,
    share: &Share,
) -> Result<Session, TlsError> {
    let address = wire.peer_addr().map_err(TlsError::Io)?;
    let approach = contexts.client(target)?;
    let name = approach.server_name.unwrap_or_else(|| ServerName::from(address.ip()));
    let handshake = async {
        if approach.needs_library {
            return library::connect(wire, approach.config, name).await;
        }
        let (stream, facts) = handshake::connect(wire, approach.config, name, share).await?;
        Ok((Stream::Records(Box::new(stream)), facts))
    };
    // On the heap, and only for as long as it takes: a session that is idle must be small.
    let shaking = Box::pin(encounter::with_server(approach.judge, handshake));
    let (shaken, learnt) =
        tokio::time::timeout(limit, shaking).await.map_err(|_| TlsError::Timeout(limit))?;
    let (stream, facts) = shaken?;
    if !learnt.was_asked && matches!(target, Target::Agent(_)) {
        return Err(TlsError::NotMutual);
    }
    Session::new(stream, facts, learnt.peer, Role::Server, learnt.was_asked)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
