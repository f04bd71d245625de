//! An entry of the directory, as the controller keeps it.

use std::net::IpAddr;
use std::sync::Arc;

use sheath_common::pod_uid::PodUid;

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

/// What tells a pod from others that have had its address. Uids are random, so any of their bits are as good as all
/// (the finalizer of MurmurHash3).
#[must_use]
pub fn uid_hash(uid: PodUid) -> u64 {
    let [high, low] = [0, 8].map(|at| {
        let mut half = [0; 8];
        half.copy_from_slice(&uid.to_bytes()[at..at + 8]);
        u64::from_be_bytes(half)
    });
    let mix = |value: u64| {
        let value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        value ^ (value >> 33)
    };
    mix(high ^ mix(low))
}
