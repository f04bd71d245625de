//! The pod that somebody asks about.

use super::model::{Labels, Selector};
use super::set::Cluster;
use crate::kubernetes::Protection;

/// A pod, as far as objects select it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'p> {
    pub namespace: &'p str,
    pub labels: &'p Labels,
    /// What the label `sheath.dev/protect` of the pod and its namespace comes to.
    pub label: Protection,
    pub cluster: &'p Cluster,
}

impl Subject<'_> {
    /// True if an object of the pod's namespace is about it.
    pub(super) fn is_selected(&self, selector: Option<&Selector>) -> bool {
        selector.is_none_or(|selector| selector.matches(self.labels))
    }
}
