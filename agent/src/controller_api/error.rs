//! What can go wrong between an agent and the controller.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

use super::verifier::NotTheController;
use crate::sys::files::ReadError;
use crate::trust::BundleError;
use crate::x509::FileError;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(
        "the controller's name {address} cannot be resolved: {error}; see `controller.address`"
    )]
    Unresolved { address: String, error: io::Error },
    #[error(
        "the controller cannot be reached at {address}: {reason}; do its pods run, and does its Service have endpoints?"
    )]
    Unreachable { address: String, reason: String },
    #[error("no TLS with the controller at {address}: {reason}")]
    Tls { address: String, reason: String },
    #[error(
        "what answers at {address} is not the controller: {error}; are the roots in {} those of this controller?",
        roots.display()
    )]
    Untrusted { address: String, roots: PathBuf, error: Box<NotTheController> },
    #[error("the roots of the trust domain cannot be used: {0}; see `controller.roots`")]
    Roots(#[from] FileError),
    #[error("the roots in {} cannot be used: {error}", path.display())]
    Bundle { path: PathBuf, error: BundleError },
    #[error("cannot read the agent's token {}: {error}; see `controller.token`", path.display())]
    Token { path: PathBuf, error: ReadError },
    #[error("the file {} has no token in it; see `controller.token`", .0.display())]
    NoToken(PathBuf),
    #[error("no replica of the controller leads at present")]
    NoLeader,
    #[error("the controller does not answer within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    #[error("{}", in_words(.0))]
    Refused(Box<Status>),
    #[error("the controller's answer makes no sense: {0}")]
    Senseless(String),
}

impl From<Status> for LinkError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl LinkError {
    /// What the controller itself has answered.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(status) => Some(status.code()),
            _ => None,
        }
    }
}

fn in_words(status: &Status) -> String {
    let message: String = status.message().chars().take(1000).collect();
    let message = message.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"");
    match status.code() {
        Code::Unavailable if is_of_transport(status) => {
            "the connection to the controller has ended".to_owned()
        }
        Code::Unavailable => format!("the controller cannot answer now: {message}"),
        Code::Unauthenticated => {
            format!("the controller does not accept the agent's token: {message}")
        }
        Code::PermissionDenied | Code::FailedPrecondition | Code::NotFound => {
            format!("the controller refuses: {message}")
        }
        Code::ResourceExhausted => format!("the controller is asked too often: {message}"),
        Code::Unimplemented => {
            "the controller does not know this call; is it of an older version than the agent?"
                .to_owned()
        }
        Code::Unknown | Code::Internal | Code::Cancelled
            if message.is_empty() || is_of_transport(status) =>
        {
            "the connection to the controller has ended".to_owned()
        }
        code => format!("the controller fails ({code:?}): {message}"),
    }
}

/// True if there was no answer: the library has made the status of an error.
pub(super) fn is_of_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}
