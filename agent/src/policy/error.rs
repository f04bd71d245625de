//! Why a flow is not wanted.

use std::net::SocketAddr;

use crate::origin::Origin;

/// Why a flow is not wanted.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    #[error("the workload is not in the configuration any more")]
    UnknownWorkload,
    #[error("no peer identity is configured for {0}: add an entry to `peers` or `externalPeers`")]
    NoPeer(SocketAddr),
    #[error(
        "the client has dialled port {dialled}, and was led to port {arrived}; if something on the way should do that, inbound.publishedPorts has to say `{dialled}:{arrived}`"
    )]
    Led { dialled: u16, arrived: u16, rule: Origin },
}

impl PolicyError {
    /// The rule that refuses the flow, where it is one, and not the lack of any.
    #[must_use]
    pub fn rule(&self) -> Option<&Origin> {
        match self {
            Self::Led { rule, .. } => Some(rule),
            Self::UnknownWorkload | Self::NoPeer(_) => None,
        }
    }
}
