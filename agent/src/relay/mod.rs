//! The relay stage: moves bytes between the two legs of a flow until both directions have ended.

mod duplex;

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use duplex::Duplex;

/// Bytes moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the application to its peer.
    pub sent: u64,
    /// From the peer to the application.
    pub received: u64,
}

/// Which leg failed.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("application: {0}")]
    App(io::Error),
    #[error("wire: {}", describe_wire(.0))]
    Wire(io::Error),
}

/// A TLS stream that ends without `close_notify` was cut (RFC 8446, 6.1).
fn describe_wire(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        "the stream was cut short without close_notify".to_owned()
    } else {
        error.to_string()
    }
}

/// Relays until both directions have ended with an orderly close, or until one leg fails. The end of one
/// direction is passed on at once and leaves the other open. `moved` is kept up to date, also when this
/// future is dropped.
///
/// # Errors
/// The leg that failed. The caller then drops both legs, which resets them.
pub async fn run<A, W>(app: &mut A, wire: &mut W, moved: &mut Moved) -> Result<(), RelayError>
where
    A: AsyncRead + AsyncWrite + Unpin,
    W: AsyncRead + AsyncWrite + Unpin,
{
    Duplex::new(app, wire, moved).await
}

#[cfg(test)]
mod tests;
