//! Why a wire has failed.

use std::io;

use super::flows::{FrameError, GoAwayCode, RefusalCode, ResetCode};
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
    Reset(ResetCode),
    #[error("peer: {0}")]
    Refused(RefusalCode),
    /// The session ended before the flow was accepted, and bytes of the application are lost.
    #[error("peer: {0}")]
    GoneAway(GoAwayCode),
    /// The session ended before the flow was accepted and before anything was read from the application: another session may
    /// carry the flow.
    #[error("peer: {0}")]
    NotTaken(GoAwayCode),
}

impl WireError {
    /// The connection has ended without an orderly close.
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

/// Why a flow was not accepted on a session.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    /// The peer refuses it.
    #[error("{0}")]
    Refused(RefusalCode),
    /// The session is dead, and the peer has not accepted the flow: another session may carry it.
    #[error("the session has ended")]
    Dead,
    /// The same, and the peer has said why.
    #[error("{0}")]
    Over(GoAwayCode),
}

/// Why our side resets a flow.
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
