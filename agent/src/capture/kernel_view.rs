//! A workload as the kernel's maps hold it.

use sheath_common::selector::Selector;
use sheath_common::workload::{InboundMode, Workload};

use crate::desired::{self, CgroupSelector};

impl desired::Workload {
    /// The workload as the kernel's maps hold it.
    #[must_use]
    pub fn kernel_view(&self) -> Workload {
        let every_port =
            self.inbound.mode != InboundMode::Disabled && self.inbound.ports.is_empty();
        Workload::new(self.id, self.outbound.mode, self.inbound.mode, every_port)
    }

    /// How the kernel recognises new cgroups of the workload. There are none where one that exists is meant.
    #[must_use]
    pub fn selector(&self) -> Option<Selector> {
        match &self.cgroup {
            // None is too long: who makes a workload of a pattern sees to that.
            CgroupSelector::Pattern(pattern) => {
                Selector::new(pattern.as_bytes(), self.kernel_view())
            }
            CgroupSelector::Id(_) => None,
        }
    }
}
