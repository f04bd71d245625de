//! The tls stage: mutual TLS with a workload's certificate, and the verdict on who the peer is.
//!
//! The wire carries the application's bytes as TLS on the application's own port. What the two sides agree on (ALPN)
//! decides which kind of session it becomes: [`crate::wire::modes`].

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
mod target;
mod verifier;

use std::io;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use crate::limits::Quota;
use crate::trust::{PeerId, Refusal, Role};
use crate::wire::{self, words};

use verifier::Refused;

pub use accept::{Greeting, accept, greet};
pub use contexts::{Contexts, Inbound, InboundTls};
pub use profile::{Choice, Profile, Version, crypto_provider};
pub use session::{Established, PeerCertificates, Proof};
pub use target::{ExternalPeer, Shown, Target};

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
    #[error("TLS handshake: {}", words::handshake(.0))]
    Protocol(rustls::Error),
    #[error("TLS handshake: {}", words::handshake_io(.0))]
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
    tcp: TcpStream,
    contexts: &Contexts,
    target: &Target,
    limit: Duration,
    quota: &Quota,
) -> Result<Established, TlsError> {
    let address = tcp.peer_addr().map_err(TlsError::Io)?;
    let approach = contexts.client(target)?;
    let name = approach.server_name.unwrap_or_else(|| ServerName::from(address.ip()));
    let handshake = async {
        if approach.needs_library {
            let (stream, facts) = library::connect(tcp, approach.config, name).await?;
            return Ok((wire::library::session(stream, quota.buffers.clone()), facts));
        }
        handshake::connect(tcp, approach.config, name, quota).await
    };
    // On the heap, and only for as long as it takes: a session that is idle must be small.
    let shaking = Box::pin(encounter::with_server(approach.judge, handshake));
    let (shaken, learnt) =
        tokio::time::timeout(limit, shaking).await.map_err(|_| TlsError::Timeout(limit))?;
    let (session, facts) = shaken?;
    if !learnt.was_asked && matches!(target, Target::Agent(_)) {
        return Err(TlsError::NotMutual);
    }
    Established::new(session, facts, learnt.peer, Role::Server, learnt.was_asked)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
