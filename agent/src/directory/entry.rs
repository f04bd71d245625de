//! What the directory says of one address.

use std::sync::Arc;

use super::Identity;
use crate::peer::UidHash;

/// The pod at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which pod it is: another one at the same address has another.
    pub uid: UidHash,
    pub standing: Standing,
}

/// What can be expected of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody wants it protected.
    Plain,
    /// It is to be protected, and the agent of its node has not said yet that it is.
    Pending {
        /// That node, for people.
        node: Arc<str>,
    },
    /// It speaks mutual TLS on these ports, and proves this identity.
    Protected { identity: Arc<Identity>, ports: Ports },
}

/// Ports of a pod on which an agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    Every,
    /// Sorted, and each once. On others it is as if the pod were plain.
    These(Arc<[u16]>),
}

impl Ports {
    #[must_use]
    pub fn have(&self, port: u16) -> bool {
        match self {
            Self::Every => true,
            Self::These(ports) => ports.binary_search(&port).is_ok(),
        }
    }
}
