//! The relay stage: moves bytes between the two legs of a flow until both directions have ended.
//!
//! [`run_sealed`] is for sessions whose records are ours, [`run`] for streams that somebody else reads and writes.

mod duplex;
mod peer;
mod prompt;
mod sealed;
mod timers;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::buffers::Account;
use crate::framing::{FrameError, GoAway, Reader, Refused, Reset};
use crate::record::RecordError;
use crate::tls::{self, RecordStream, StreamError};

use duplex::Duplex;
use sealed::Sealed;

pub use sealed::break_off;
pub use timers::Patience;

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
    /// The peer breaks the rules of TLS, or ends the session with an alert.
    #[error("wire: {0}")]
    Record(#[from] RecordError),
    /// The peer breaks the rules of the framing.
    #[error("wire: {0}")]
    Frame(#[from] FrameError),
    #[error("peer: {0}")]
    Reset(Reset),
    #[error("peer: {0}")]
    Refused(Refused),
    /// The session came to its end before the flow was taken, and what had been sent is lost.
    #[error("peer: {0}")]
    GoneAway(GoAway),
    /// The same, before anything of the application's was read: another session may carry the flow.
    #[error("peer: {0}")]
    NotTaken(GoAway),
    #[error("nothing has moved for {}", humantime::format_duration(*.0))]
    Idle(Duration),
    #[error(
        "wire: the peer has acknowledged nothing of what was sent to it for {}",
        humantime::format_duration(*.0)
    )]
    Dead(Duration),
    #[error("wire: {0}")]
    Sealing(String),
}

impl From<StreamError> for RelayError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Io(error) => Self::Wire(error),
            StreamError::Record(error) => Self::Record(error),
            StreamError::Seal(error) => Self::Sealing(error.to_string()),
            StreamError::Keys(error) => Self::Sealing(error.to_string()),
        }
    }
}

/// A TLS stream that ends without `close_notify` was cut (RFC 8446, 6.1).
fn describe_wire(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "the stream was cut short without close_notify".to_owned();
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(error) => tls::words(error),
        None => error.to_string(),
    }
}

/// Relays until both directions have ended with an orderly close, or until one leg fails. The end of one
/// direction is passed on at once and leaves the other open. `moved` is kept up to date, also when this
/// future is dropped. `tcp` is what `wire` is on.
///
/// # Errors
/// The leg that failed, or that nothing has moved for too long. The caller then drops both legs, which resets them.
pub async fn run<W>(
    app: &TcpStream,
    wire: &mut W,
    tcp: &TcpStream,
    buffers: &Arc<Account>,
    patience: Patience,
    moved: &mut Moved,
) -> Result<(), RelayError>
where
    W: AsyncRead + AsyncWrite + Unpin,
{
    Duplex::new(app, wire, tcp, buffers, patience, moved).await
}

/// What the bytes of a session mean.
#[derive(Debug)]
pub enum Framing<'r> {
    /// They are the application's.
    Bytes,
    /// They are frames; the reader is that of what the peer sends.
    Flows(&'r mut Reader),
}

/// As [`run`], with a session whose records are ours.
///
/// # Errors
/// What ended the flow early. The peer has been told, as far as that was possible at once.
pub async fn run_sealed(
    app: &TcpStream,
    wire: &mut RecordStream,
    framing: Framing<'_>,
    patience: Patience,
    moved: &mut Moved,
) -> Result<(), RelayError> {
    let is_framed = matches!(framing, Framing::Flows(_));
    let tcp = wire.tcp().clone();
    let result = Sealed::new(app, wire, &tcp, framing, patience, moved).await;
    if let Err(error) = &result {
        break_off(wire, is_framed, error);
    }
    result
}

/// What a flow has come to when both directions are over: why the wire, or else the application, took nothing any more,
/// if it did.
fn outcome(wire: Option<io::Error>, app: Option<io::Error>) -> Result<(), RelayError> {
    match (wire, app) {
        (Some(error), _) => Err(RelayError::Wire(error)),
        (None, Some(error)) => Err(RelayError::App(error)),
        (None, None) => Ok(()),
    }
}

/// True if a connection is gone, so that reading from it comes to an end as well.
fn is_hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests;
