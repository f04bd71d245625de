//! Pods of this node that are known.

use std::collections::BTreeSet;

use sheath_common::pod_uid::PodUid;

/// What is known of the node's pods, besides those that are [workloads](super::CgroupSelector::Pod). A pod that is neither is one
/// that nobody has decided about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// Pods that are left alone. One that is a workload too is the workload: there is only ever more protection.
    pub plain: BTreeSet<PodUid>,
}

impl Pods {
    /// Puts together what two producers know.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.plain.extend(&other.plain);
        self
    }
}
