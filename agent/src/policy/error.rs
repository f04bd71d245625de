//! Why policy refuses a flow.

use std::net::SocketAddr;

use crate::origin::Origin;

/// Why policy refuses a flow.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    #[error("the workload is not in the configuration any more")]
    UnknownWorkload,
    #[error("no peer identity is configured for {0}: add an entry to `peers` or `externalPeers`")]
    NoPeer(SocketAddr),
    #[error(
        "the client has dialled port {dialled}, and was led to port {arrived}; if something on the way is meant to translate it, add `{dialled}:{arrived}` to inbound.publishedPorts"
    )]
    Led { dialled: u16, arrived: u16, rule: Origin },
}

impl PolicyError {
    /// The rule that refuses the flow; `None` if it is the lack of a rule.
    #[must_use]
    pub fn rule(&self) -> Option<&Origin> {
        match self {
            Self::Led { rule, .. } => Some(rule),
            Self::UnknownWorkload | Self::NoPeer(_) => None,
        }
    }
}
