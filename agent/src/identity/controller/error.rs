//! Why there is no identity of the controller, or no newer one.

use tonic::Code;

use crate::controller_api::LinkError;
use crate::follow::Problem;
use crate::identity::svid::UnfitCertificate;
use crate::trust::{AuthenticationError, BundleError};
use crate::x509::KeyPairError;

/// The cause, and where to look next.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    #[error(transparent)]
    Link(#[from] LinkError),
    /// There are no roots, which is said of all pods at once.
    #[error("{0}")]
    Roots(Problem),
    #[error("what the controller has sent cannot be used: {0}")]
    KeyPair(#[from] KeyPairError),
    #[error("what the controller has sent cannot be used: {0}")]
    Certificate(#[from] UnfitCertificate),
    #[error("what the controller has sent does not prove the pod's identity: {0}")]
    Unproved(#[from] AuthenticationError),
    #[error("the roots that the controller has sent cannot be used: {0}")]
    Bundle(#[from] BundleError),
    #[error("the controller has sent {0} certificates, where {1} at most make sense")]
    TooMany(usize, usize),
    #[error("no key can be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the controller has ended the stream of roots; it is followed again")]
    Ended,
}

impl ControllerError {
    /// True if the controller has answered that the pod gets none.
    pub fn is_refusal(&self) -> bool {
        let Self::Link(error) = self else { return false };
        matches!(
            error.code(),
            Some(Code::PermissionDenied | Code::FailedPrecondition | Code::NotFound)
        )
    }
}
