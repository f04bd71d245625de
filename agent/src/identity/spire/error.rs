//! What can go wrong with a SPIRE agent, and what it means for the workload.

use std::path::PathBuf;

use tonic::{Code, Status};

use super::PATIENCE;
use crate::follow::Unfollowed;
use crate::identity::Update;
use crate::identity::svid::UnfitCertificate;
use crate::spiffe::{SpiffeError, SpiffeId, TrustDomain};
use crate::trust::BundleError;
use crate::x509::{KeyPairError, X509Error};

/// Why a session with the SPIRE agent ended, or has nothing to give.
#[derive(Debug, thiserror::Error)]
pub enum SpireError {
    #[error("cannot reach the SPIRE agent at {}: {reason}", socket.display())]
    Unreachable { socket: PathBuf, reason: Unreachable },
    #[error("the SPIRE agent does not let this agent ask for anything, or not for this workload: {}", .0.message())]
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
    Unusable(#[from] UnusableMessage),
    #[error(transparent)]
    Unfollowed(#[from] Unfollowed),
}

/// Why no connection to the SPIRE agent can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    #[error("identity.spire.socket must be an absolute path")]
    RelativePath,
    #[error("nobody listens there")]
    NotListening,
    #[error("it is no socket")]
    NoSocket,
    #[error("there is no such socket")]
    Missing,
    #[error("it cannot be inspected")]
    Unknown,
}

/// What is wrong with a message of the SPIRE agent.
#[derive(Debug, thiserror::Error)]
pub enum UnusableMessage {
    #[error(transparent)]
    KeyPair(#[from] KeyPairError),
    #[error(transparent)]
    Certificate(#[from] UnfitCertificate),
    #[error("a certificate without a SPIFFE ID")]
    NoSpiffeId,
    #[error(transparent)]
    Authorities(#[from] X509Error),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("two bundles of {0}")]
    TwoBundles(TrustDomain),
    #[error("the trust domain `{name}` {error}")]
    TrustDomain { name: String, error: SpiffeError },
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
        Code::ResourceExhausted => "is overloaded",
        Code::Unauthenticated => {
            "does not know this agent; see authorized_delegates in its configuration"
        }
        Code::InvalidArgument => "does not accept the request",
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
    /// The consequence for the workload. Its identity is withdrawn only if the SPIRE agent says so.
    pub fn into_update(self) -> Update {
        match self {
            Self::Denied(_) | Self::NoSvid { .. } => Update::Withdrawn(self.into()),
            _ => Update::Failed(self.into()),
        }
    }
}
