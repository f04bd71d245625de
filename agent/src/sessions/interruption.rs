//! Why a live session is interrupted.

use tokio::sync::OwnedSemaphorePermit;

use crate::origin::Origin;
use crate::peer::Refusal;
use crate::policy::PolicyError;

/// What interrupts a live session.
#[derive(Debug)]
pub enum Interruption {
    /// It must end.
    Revoked(Revoked),
    /// It is to go to another process, if it can. Others wait until the permit, if there is one, is dropped.
    Called(Option<OwnedSemaphorePermit>),
}

/// Why a session must end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Revoked {
    /// The port was permissive when the session began.
    #[error("the port is strict now")]
    Strict,
    /// It went to an endpoint without protection, which was only preferred when the session began.
    #[error("the workload requires protection now")]
    Required,
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("the workload has no identity any more")]
    NoIdentity,
    /// The peer would be refused now.
    #[error(transparent)]
    Peer(#[from] Refusal),
    #[error("the workload has gone")]
    WorkloadGone,
    #[error("the peer's certificate has expired, or its authority's")]
    Expired,
    /// Nobody is left to judge it.
    #[error("the agent no longer judges the session")]
    Unwatched,
}

impl Revoked {
    /// The rule that ends the session, if a rule does.
    #[must_use]
    pub fn rule(&self) -> Option<&Origin> {
        match self {
            Self::Policy(error) => error.rule(),
            Self::Peer(refusal) => refusal.rule.as_ref(),
            _ => None,
        }
    }
}
