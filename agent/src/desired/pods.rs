//! Pods that are known and not selected.

use std::collections::BTreeSet;

use sheath_common::pod_uid::PodUid;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    pub plain: BTreeSet<PodUid>,
}
