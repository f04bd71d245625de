//! What can go wrong with a SPIRE agent, and what it means for the workload.

use std::path::PathBuf;

use tonic::{Code, Status};

use super::PATIENCE;
use crate::follow::Unfollowed;
use crate::identity::Update;
use crate::spiffe::SpiffeId;

/// Why a session with the SPIRE agent ended, or has nothing to give.
#[derive(Debug, thiserror::Error)]
pub enum SpireError {
    #[error("cannot reach the SPIRE agent at {}: {reason}", socket.display())]
    Unreachable { socket: PathBuf, reason: String },
    #[error("the SPIRE agent lets this agent ask for nothing, or not for this workload: {}", .0.message())]
    Denied(Status),
    #[error("{}", failed(.0))]
    Failed(Status),
    #[error("there is no process to ask SPIRE for")]
    NoProcess,
    #[error("the SPIRE agent has ended the subscription")]
    Ended,
    #[error("the SPIRE agent does not answer within {}", humantime::format_duration(PATIENCE))]
    Silent,
    /// The process by which the workload was known has ended, or never was one of its own.
    #[error("the process by which the workload was attested has ended")]
    ProcessEnded,
    #[error("the SPIRE agent has no SVID for the workload{}", expected.as_ref().map(|id| format!(" that is of {id}")).unwrap_or_default())]
    NoSvid { expected: Option<SpiffeId> },
    #[error("what the SPIRE agent sent cannot be used: {0}")]
    Unusable(String),
    #[error(transparent)]
    Unfollowed(#[from] Unfollowed),
}

/// A message for a status. The text of the status is SPIRE's own only if SPIRE has answered.
fn failed(status: &Status) -> String {
    let what = match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Aborted => {
            return "the SPIRE agent has closed the connection, or does not answer".to_owned();
        }
        Code::Unimplemented => {
            return "what answers at the socket has no Delegated Identity API; it must be the SPIRE agent's \
                    admin_socket_path"
                .to_owned();
        }
        Code::Unknown | Code::Internal if status.message().is_empty() => {
            return "the SPIRE agent's answer cannot be read".to_owned();
        }
        Code::DeadlineExceeded => "does not answer in time",
        Code::ResourceExhausted => "has too much to do",
        Code::Unauthenticated => {
            "does not know this agent; see authorized_delegates in its configuration"
        }
        Code::InvalidArgument => "does not take the question",
        Code::NotFound => "knows nothing of the workload",
        _ => "fails",
    };
    format!("the SPIRE agent {what}: {}", status.message())
}

impl From<Status> for SpireError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::PermissionDenied => Self::Denied(status),
            _ => Self::Failed(status),
        }
    }
}

impl SpireError {
    pub fn unusable(error: impl ToString) -> Self {
        Self::Unusable(error.to_string())
    }

    /// The consequence for the workload. Its identity is withdrawn only if the SPIRE agent says so.
    pub fn into_update(self) -> Update {
        match self {
            Self::Denied(_) | Self::NoSvid { .. } => Update::Withdrawn(self.into()),
            _ => Update::Failed(self.into()),
        }
    }
}
