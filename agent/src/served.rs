//! Whether the agent does its part for a pod: what its processes connect to and listen on is the agent's business already. The gate
//! asks before a pod starts, and the controller's directory is told of it.

use std::collections::HashMap;

use sheath_common::pod_uid::PodUid;

use crate::capture::ServedWorkload;
use crate::desired::{CgroupSelector, Desired, Workload};

/// The workloads that are pods.
#[must_use]
pub fn pods(desired: &Desired) -> HashMap<PodUid, &Workload> {
    let pods = desired.workloads.iter().filter_map(|workload| match workload.cgroup {
        CgroupSelector::Pod(uid) => Some((uid, &**workload)),
        CgroupSelector::Pattern(_) | CgroupSelector::Id(_) => None,
    });
    pods.collect()
}

/// True if capture has a pod's cgroup, and serves its network namespace. That is the one with this inode number, if it is known.
#[must_use]
pub fn is_served(seen: &ServedWorkload, own: Option<u64>) -> bool {
    let is_it = |inode| own.is_none_or(|own| own == inode);
    let mut namespaces = seen.namespaces.iter();
    seen.has_cgroup && namespaces.any(|served| served.ready && !served.host && is_it(served.inode))
}
