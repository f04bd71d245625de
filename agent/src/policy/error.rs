//! Why policy refuses a flow.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::origin::Origin;

/// Why policy refuses a flow.
///
/// Where the directory refuses one, the next attempt may be answered otherwise: it tells of what is being changed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    #[error("the workload is not in the configuration any more")]
    UnknownWorkload,
    #[error("no peer identity is configured for {0}: add an entry to `peers` or `externalPeers`")]
    NoPeer(SocketAddr),
    #[error(
        "nobody is known at {0}, an address of the cluster's; `sheath status` says how old the directory is, and bypass is for what is no pod"
    )]
    Unknown(SocketAddr),
    #[error(
        "the pod at {destination} is to be protected, and the agent of its node {node} has not said yet that it is; try again, or see `sheath status` there"
    )]
    Pending { destination: SocketAddr, node: Arc<str> },
    #[error(
        "the directory says now that the pod at {0} is not protected, or not on this port; try again"
    )]
    Plain(SocketAddr),
    #[error("whoever is at {0} is protected now, and was not when the connection began; try again")]
    Protected(SocketAddr),
    #[error("the Service at {0} is bypassed by its name now; try again")]
    Bypassed(SocketAddr),
    #[error("another pod has got the address {0}")]
    AnotherPod(SocketAddr),
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
            Self::Unknown(_)
            | Self::Pending { .. }
            | Self::Plain(_)
            | Self::Protected(_)
            | Self::Bypassed(_)
            | Self::AnotherPod(_) => Some(&Origin::Directory),
            Self::UnknownWorkload | Self::NoPeer(_) => None,
        }
    }
}
