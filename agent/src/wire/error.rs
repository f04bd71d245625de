//! Why a wire carries nothing more.

use std::io;

use super::flows::{FrameError, GoAway, Refused, Reset};
use super::record::{RecordError, SealError, UnsupportedKeys};
use super::words;

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("wire: {}", words::stream(.0))]
    Io(#[from] io::Error),
    /// The peer breaks the rules of TLS, or ends the session with an alert.
    #[error("wire: {0}")]
    Record(#[from] RecordError),
    /// The peer breaks the rules of the framing.
    #[error("wire: {0}")]
    Frame(#[from] FrameError),
    #[error("wire: {0}")]
    Seal(#[from] SealError),
    #[error("wire: {0}")]
    Keys(#[from] UnsupportedKeys),
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
}

impl WireError {
    /// The connection has ended where it may not.
    #[must_use]
    pub fn cut() -> Self {
        Self::Io(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Why nothing more can be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// What was to be sent could not be read.
    #[error(transparent)]
    App(io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Why a session takes no flow.
#[derive(Debug)]
pub enum NotAccepted {
    /// The peer does not want it.
    Refused(Refused),
    /// The peer has not taken it, and never will: another session may.
    Dead,
    /// The same, and the peer has said why.
    Over(GoAway),
}

/// Why a flow is broken off by our side.
#[derive(Clone, Copy, Debug)]
pub enum Abort<'e> {
    /// The application has failed.
    Application,
    /// Nothing has moved for too long.
    Timeout,
    /// What made the session good is gone.
    Revoked,
    /// The wire itself has failed.
    Wire(&'e WireError),
}
