//! Events from the kernel to the agent, through one ring buffer.

use crate::net::Endpoint;
use crate::workload::WorkloadId;

/// What happened.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A `connect()` was refused; `detail` is a [`crate::verdict::Denial`].
    ConnectDenied = 1,
    /// A guard dropped what a socket had sent; `detail` is a [`crate::guard::DropReason`].
    GuardDroppedOutbound = 2,
    /// A guard dropped what came to, or went from, a listener on a port that only the agent answers on.
    GuardDroppedInbound = 3,
    /// A cgroup was made that is a workload or a pod; `cgroup` is its id.
    CgroupCreated = 4,
    /// A workload's cgroup was removed; `cgroup` is its id.
    CgroupRemoved = 5,
    /// Something listens in a namespace the agent does not serve.
    ListenElsewhere = 6,
    /// A workload's cgroup got its first process, or lost its last; `cgroup` is its id.
    CgroupPopulated = 7,
    /// A workload's process was refused a TCP socket where the programs are not attached.
    SocketRefused = 8,
    /// A SYN came from one of the node's own addresses to a port of a pod's probes, and was none of the kubelet's.
    ProbeUnmatched = 9,
}

impl EventKind {
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::ConnectDenied,
            2 => Self::GuardDroppedOutbound,
            3 => Self::GuardDroppedInbound,
            4 => Self::CgroupCreated,
            5 => Self::CgroupRemoved,
            6 => Self::ListenElsewhere,
            7 => Self::CgroupPopulated,
            8 => Self::SocketRefused,
            9 => Self::ProbeUnmatched,
            _ => return None,
        })
    }
}

/// One record of the `EVENTS` ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// An [`EventKind`].
    pub kind: u32,
    pub detail: u32,
    pub netns: u64,
    pub cgroup: u64,
    /// Cookie of the socket it is about, zero where there is none.
    pub cookie: u64,
    pub workload: WorkloadId,
    /// Thread group id of the task that caused it, zero where there is none.
    pub pid: u32,
    pub source: Endpoint,
    pub destination: Endpoint,
}
