//! Why a sandbox may not start.

use serde::{Deserialize, Serialize};
use sheath_common::pod_uid::PodUid;

use super::sandbox::PodName;

/// Why a sandbox may not start, or not yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    #[error(
        "not decided yet: the agent has not seen this pod in the API server so far; the kubelet tries again by itself. If \
         it stays so, see `sheath status` on the node for how old the agent's view of the API server is"
    )]
    Undecided,
    #[error("not ready yet: {0}; the kubelet tries again by itself")]
    Preparing(String),
    #[error(
        "no identity: {0}; the kubelet tries again by itself, `sheath status` on the node says what the source of \
         identities answers"
    )]
    NoIdentity(String),
    #[error("its network namespace is not served: {0}; see `sheath status` on the node")]
    NamespaceNotServed(String),
    #[error(
        "the runtime handler `{0}` is not known to keep a pod's sockets in the node's kernel, and only there can Sheath \
         protect them; use another runtimeClassName, take the label sheath.dev/protect away, or list it in \
         kubernetes.runtimeHandlers if it is one that does"
    )]
    Unsupported(String),
    #[error("refused: {0}")]
    Refused(String),
    #[error("the runtime describes it in a way that the agent cannot use: {0}")]
    Malformed(String),
    #[error(
        "the agent is asked about more sandboxes than it can look after at a time; the kubelet tries again by itself"
    )]
    Overloaded,
}

/// The same without words, for the gate socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    Undecided,
    Preparing,
    NoIdentity,
    NamespaceNotServed,
    Unsupported,
    Refused,
    Malformed,
    Overloaded,
}

impl NotAdmitted {
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Undecided => Reason::Undecided,
            Self::Preparing(_) => Reason::Preparing,
            Self::NoIdentity(_) => Reason::NoIdentity,
            Self::NamespaceNotServed(_) => Reason::NamespaceNotServed,
            Self::Unsupported(_) => Reason::Unsupported,
            Self::Refused(_) => Reason::Refused,
            Self::Malformed(_) => Reason::Malformed,
            Self::Overloaded => Reason::Overloaded,
        }
    }

    /// The whole message: whose sandbox, and why.
    #[must_use]
    pub fn about(&self, pod: &PodName, uid: &PodUid) -> String {
        format!("sheath: pod {pod} ({uid}): {self}")
    }
}

impl Reason {
    /// True if it may be otherwise when it is asked again.
    #[must_use]
    pub fn passes(self) -> bool {
        !matches!(self, Self::Unsupported | Self::Refused | Self::Malformed)
    }
}
