//! An entry of the directory, as the controller keeps it.

use std::net::IpAddr;
use std::sync::Arc;

use sheath_common::pod_uid::PodUid;

use crate::peer::UidHash;

/// The pod at an address. Names are shared with other entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterEntry {
    pub uid_hash: u64,
    pub state: ClusterState,
}

/// What agents may expect of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterState {
    Plain,
    /// The agent of this node has not said that it is protected; of several nodes, if it is not known whose the address is.
    Pending(Arc<str>),
    /// With this identity, on every port.
    Protected(Arc<str>),
}

/// An address and what has become of its entry: `None` if it has none any more.
pub type EntryChange = (IpAddr, Option<ClusterEntry>);

/// What tells a pod from others that have had its address.
#[must_use]
pub fn uid_hash(uid: PodUid) -> u64 {
    UidHash::from(uid).0
}

/// How many entries there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub plain: usize,
    pub pending: usize,
    pub protected: usize,
}

impl Counts {
    fn of(&mut self, entry: &ClusterEntry) -> &mut usize {
        match entry.state {
            ClusterState::Plain => &mut self.plain,
            ClusterState::Pending(_) => &mut self.pending,
            ClusterState::Protected(_) => &mut self.protected,
        }
    }

    /// An entry takes the place of another.
    pub fn change(&mut self, before: Option<&ClusterEntry>, after: Option<&ClusterEntry>) {
        if let Some(before) = before {
            *self.of(before) -= 1;
        }
        if let Some(after) = after {
            *self.of(after) += 1;
        }
    }
}
