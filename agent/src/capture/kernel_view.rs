//! Workloads in the form of the kernel's maps.

use sheath_common::selector::Glob;
use sheath_common::workload::{InboundMode, NO_WORKLOAD, Workload};

use crate::desired;

impl desired::Workload {
    /// The workload in the form of the kernel's maps. Without a number, it is refused: the kernel would take it for no
    /// workload, and protect nothing.
    #[must_use]
    pub fn kernel_view(&self) -> Workload {
        if self.id == NO_WORKLOAD {
            return Workload::REFUSED;
        }
        let every_port =
            self.inbound.mode != InboundMode::Disabled && self.inbound.ports.is_empty();
        Workload::new(self.id, self.outbound.mode, self.inbound.mode, every_port)
    }

    /// How new cgroups of the workload are recognised. `None` if the workload is one existing cgroup.
    #[must_use]
    pub fn glob(&self) -> Option<Glob> {
        // The producer of the workload has checked the length.
        self.cgroup.pattern().and_then(|pattern| Glob::new(pattern.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_without_a_number_is_refused() {
        let known = desired::Workload::testing("web");
        assert!(!known.kernel_view().is_refused());
        assert!(desired::Workload { id: NO_WORKLOAD, ..known }.kernel_view().is_refused());
    }
}
