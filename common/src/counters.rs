//! Counters that the BPF programs keep, one slot each in a per-CPU array.

/// A counter, and its slot.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// `connect()` turned to the agent.
    ConnectProtected = 0,
    /// `connect()` of a workload left alone.
    ConnectBypassed = 1,
    /// `connect()` of a workload refused.
    ConnectDenied = 2,
    /// SYNs of workloads dropped by the egress guard.
    GuardDroppedOutbound = 3,
    /// SYN-ACKs of workloads dropped by the egress guard.
    GuardDroppedInbound = 4,
    /// SYNs handed to one of the agent's listeners.
    LookupSteered = 5,
    /// SYNs answered with a reset because no agent listens.
    LookupRefused = 6,
    /// Redirected connections that could not be published (and are reset by the agent).
    FlowLost = 7,
    /// Cgroups recognised as workloads when they were made.
    CgroupEnrolled = 8,
    /// Cgroups that could not be recorded as workloads.
    EnrolFailed = 9,
    /// Events that did not fit the ring buffer.
    EventLost = 10,
    /// The agent's connections to local servers that would have reached a socket that is not the workload's.
    LocalLegRefused = 11,
}

impl Counter {
    pub const ALL: [Self; 12] = [
        Self::ConnectProtected,
        Self::ConnectBypassed,
        Self::ConnectDenied,
        Self::GuardDroppedOutbound,
        Self::GuardDroppedInbound,
        Self::LookupSteered,
        Self::LookupRefused,
        Self::FlowLost,
        Self::CgroupEnrolled,
        Self::EnrolFailed,
        Self::EventLost,
        Self::LocalLegRefused,
    ];

    /// The name operators see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectProtected => "connect_protected",
            Self::ConnectBypassed => "connect_bypassed",
            Self::ConnectDenied => "connect_denied",
            Self::GuardDroppedOutbound => "guard_dropped_outbound",
            Self::GuardDroppedInbound => "guard_dropped_inbound",
            Self::LookupSteered => "lookup_steered",
            Self::LookupRefused => "lookup_refused",
            Self::FlowLost => "flow_lost",
            Self::CgroupEnrolled => "cgroup_enrolled",
            Self::EnrolFailed => "enrol_failed",
            Self::EventLost => "event_lost",
            Self::LocalLegRefused => "local_leg_refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_the_positions_in_all() {
        for (slot, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, slot);
        }
    }
}
