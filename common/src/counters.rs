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
    /// Packets that sockets had sent, dropped by the egress guard.
    GuardDroppedOutbound = 3,
    /// Packets to and from workloads' own listeners on the agent's ports, dropped by either guard.
    GuardDroppedInbound = 4,
    /// SYNs handed to one of the agent's listeners.
    LookupSteered = 5,
    /// SYNs answered with a reset because no agent listens.
    LookupRefused = 6,
    /// Redirected connections that could not be published (and are reset by the agent).
    FlowLost = 7,
    /// Cgroups recognised as workloads when they were made.
    CgroupEnrolled = 8,
    /// Cgroups that could not be recorded as workloads, and are refused.
    EnrolFailed = 9,
    /// Events that did not fit the ring buffer.
    EventLost = 10,
    /// Of those dropped outbound: of a connection to the agent or to loopback, by another interface.
    GuardDroppedConfined = 11,
    /// Of those dropped outbound: to this very host, by an interface that leads elsewhere.
    GuardDroppedLoopbackAddress = 12,
    /// Of those dropped outbound: with a route that the sender chose.
    GuardDroppedSourceRouted = 13,
    /// Of those dropped outbound: with headers that cannot be parsed.
    GuardDroppedUnreadable = 14,
    /// TCP sockets refused to workloads where the programs are not attached.
    SocketRefused = 15,
    /// The agent's connections to local servers that would have reached a socket that is not the workload's.
    LocalLegRefused = 16,
    /// Of those dropped outbound: of a connection that was turned to the agent and would not have come to it.
    GuardDroppedDiverted = 17,
    /// Pods that were held when their cgroups were made.
    PodHeld = 18,
    /// Of the refused `connect()`s: of pods that nobody has decided about.
    ConnectDeniedUndecided = 19,
    /// Connections of the kubelet that were let through to a pod.
    ProbePassed = 20,
    /// SYNs from the node's own addresses to a port of a pod's probes that were none of the kubelet's.
    ProbeUnmatched = 21,
    /// Connections of the kubelet that could not be recorded, and are not let through.
    ProbeLost = 22,
}

impl Counter {
    pub const ALL: [Self; 23] = [
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
        Self::GuardDroppedConfined,
        Self::GuardDroppedLoopbackAddress,
        Self::GuardDroppedSourceRouted,
        Self::GuardDroppedUnreadable,
        Self::SocketRefused,
        Self::LocalLegRefused,
        Self::GuardDroppedDiverted,
        Self::PodHeld,
        Self::ConnectDeniedUndecided,
        Self::ProbePassed,
        Self::ProbeUnmatched,
        Self::ProbeLost,
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
            Self::GuardDroppedConfined => "guard_dropped_confined",
            Self::GuardDroppedLoopbackAddress => "guard_dropped_loopback_address",
            Self::GuardDroppedSourceRouted => "guard_dropped_source_routed",
            Self::GuardDroppedUnreadable => "guard_dropped_unreadable",
            Self::SocketRefused => "socket_refused",
            Self::LocalLegRefused => "local_leg_refused",
            Self::GuardDroppedDiverted => "guard_dropped_diverted",
            Self::PodHeld => "pods_held",
            Self::ConnectDeniedUndecided => "connect_denied_undecided",
            Self::ProbePassed => "probes_passed",
            Self::ProbeUnmatched => "probe_unmatched",
            Self::ProbeLost => "probe_lost",
        }
    }

    /// What it counts, for operators.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            Self::ConnectProtected => "Calls of connect() that were turned to the agent.",
            Self::ConnectBypassed => "Calls of connect() by workloads that were left alone.",
            Self::ConnectDenied => "Calls of connect() by workloads that were refused.",
            Self::GuardDroppedOutbound => "Packets of workloads that the egress guard dropped.",
            Self::GuardDroppedInbound => {
                "Packets to and from listeners of workloads, on ports that only the agent answers on, that a guard dropped."
            }
            Self::LookupSteered => "SYNs that were handed to a listener of the agent.",
            Self::LookupRefused => {
                "SYNs that were answered with a reset, because no agent listened."
            }
            Self::FlowLost => {
                "Connections that were reset, because the agent could not be told where they go."
            }
            Self::CgroupEnrolled => "Cgroups that became workloads when they were made.",
            Self::EnrolFailed => {
                "Cgroups that could not be recorded as workloads, and are refused."
            }
            Self::EventLost => {
                "Events that the agent was not told of, because the ring buffer was full."
            }
            Self::GuardDroppedConfined => {
                "Packets dropped outbound: of a connection to the agent or to loopback, by another interface."
            }
            Self::GuardDroppedLoopbackAddress => {
                "Packets dropped outbound: to this host itself, by an interface that leads elsewhere."
            }
            Self::GuardDroppedSourceRouted => {
                "Packets dropped outbound: by a route that the sender chose."
            }
            Self::GuardDroppedUnreadable => {
                "Packets dropped outbound: with headers that cannot be followed."
            }
            Self::SocketRefused => {
                "TCP sockets refused to workloads where the programs are not attached."
            }
            Self::LocalLegRefused => {
                "Connections of the agent to local servers that came to a socket that is not the workload's."
            }
            Self::GuardDroppedDiverted => {
                "Packets dropped outbound: of a connection that was turned to the agent and would have gone elsewhere."
            }
            Self::PodHeld => "Pods that nobody had decided about when their cgroups were made.",
            Self::ConnectDeniedUndecided => {
                "Calls of connect() refused: by pods that nobody had decided about."
            }
            Self::ProbePassed => {
                "Connections of the kubelet that were let through to the ports of pods' probes."
            }
            Self::ProbeUnmatched => {
                "SYNs from the node's own addresses to ports of pods' probes that were none of the kubelet's."
            }
            Self::ProbeLost => {
                "Connections of the kubelet that could not be recorded for want of room, and were not let through."
            }
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
