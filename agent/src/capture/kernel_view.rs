//! Workloads in the form of the kernel's maps.

use sheath_common::selector::Selector;
use sheath_common::workload::{InboundMode, Workload};

use crate::desired::{self, CgroupSelector};

impl desired::Workload {
    /// The workload in the form of the kernel's maps.
    #[must_use]
    pub fn kernel_view(&self) -> Workload {
        let every_port =
            self.inbound.mode != InboundMode::Disabled && self.inbound.ports.is_empty();
        Workload::new(self.id, self.outbound.mode, self.inbound.mode, every_port)
    }

    /// How the kernel recognises new cgroups of the workload. `None` if the workload is one existing cgroup.
    #[must_use]
    pub fn selector(&self) -> Option<Selector> {
        match &self.cgroup {
            // The producer of the workload has checked the length.
            CgroupSelector::Pattern(pattern) => {
                Selector::new(pattern.as_bytes(), self.kernel_view())
            }
            CgroupSelector::Id(_) => None,
        }
    }
}
