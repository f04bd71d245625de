//! Events from the kernel's ring buffer.

use std::io;

use aya::maps::{MapData, RingBuf};
use sheath_common::event::{Event, EventKind};
use sheath_common::guard::DropReason;
use sheath_common::verdict::Denial;
use tokio::io::unix::AsyncFd;

use crate::sys::bpf;

/// The ring buffer, readable.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// If the ring buffer cannot be waited for.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        Ok(Self { ring: bpf::await_ring(ring)? })
    }

    /// Waits for events and takes all that are there.
    ///
    /// # Errors
    /// If the ring buffer cannot be waited for.
    pub async fn next(&mut self) -> io::Result<Vec<Event>> {
        let mut guard = self.ring.readable_mut().await?;
        let ring = guard.get_inner_mut();
        let mut events = Vec::new();
        while let Some(record) = ring.next() {
            events.extend(bpf::read_event(&record));
        }
        guard.clear_ready();
        Ok(events)
    }
}

/// True if the event may mean that there is a cgroup, a process or a namespace to attend to.
#[must_use]
pub fn calls_for_reconcile(event: &Event) -> bool {
    match EventKind::from_code(event.kind) {
        Some(EventKind::ConnectDenied) => event.detail == Denial::NamespaceNotReady as u32,
        Some(EventKind::GuardDroppedInbound) => true,
        Some(EventKind::GuardDroppedOutbound | EventKind::ProbeUnmatched) | None => false,
        Some(
            EventKind::CgroupCreated
            | EventKind::CgroupRemoved
            | EventKind::CgroupPopulated
            | EventKind::ListenElsewhere
            | EventKind::SocketRefused,
        ) => true,
    }
}

/// What the access log says about a refused `connect()`.
#[must_use]
pub fn denial_reason(detail: u32) -> &'static str {
    const UNKNOWN: u32 = Denial::UnknownDestination as u32;
    const AGENT_PORT: u32 = Denial::AgentPort as u32;
    const LINK_LOCAL: u32 = Denial::LinkLocal as u32;
    const NOT_READY: u32 = Denial::NamespaceNotReady as u32;
    const NO_MEMORY: u32 = Denial::NoMemory as u32;
    const BOUND: u32 = Denial::BoundToDevice as u32;
    const UNREACHABLE: u32 = Denial::Unreachable as u32;
    const NOT_ENROLLED: u32 = Denial::NotEnrolled as u32;
    const CUT_OFF: u32 = Denial::CutOff as u32;
    const UNDECIDED: u32 = Denial::PodUndecided as u32;
    const PLAIN: u32 = Denial::PlainDestination as u32;
    const NOBODY: u32 = Denial::NobodyReady as u32;
    match detail {
        UNDECIDED => {
            "the pod is held: nobody has decided yet whether it is a workload (`sheath status` lists held pods)"
        }
        NOBODY => {
            "nobody answers there now: the pod is not protected yet, or the Service has no endpoint for this port"
        }
        PLAIN => {
            "outbound mode is require, and the pod there is not protected; protect it, or put it on the workload's outbound.bypass"
        }
        CUT_OFF => {
            "a packet filter on the workload's cgroup blocks its way to the agent (`sheath status` says which)"
        }
        NOT_ENROLLED => {
            "the cgroup could not be recorded as a workload, or its path is too long to tell (`sheath status` says which)"
        }
        UNKNOWN => "outbound mode is require and no peer or bypass covers the destination",
        AGENT_PORT => "the agent's own port is not for workloads to dial",
        LINK_LOCAL => "a link-local destination cannot be protected",
        NOT_READY => "the agent does not serve this network namespace yet",
        NO_MEMORY => "the kernel has no memory to remember the connection",
        BOUND => {
            "the socket is bound to a device or VRF (SO_BINDTODEVICE) and cannot be turned to the agent; \
             do not bind it, or put the destination on the workload's outbound.bypass"
        }
        UNREACHABLE => {
            "the destination could not be reached a moment ago, and has not come back since"
        }
        _ => "refused by the kernel for a reason this agent does not know",
    }
}

/// What the log says about a packet that a guard has dropped.
#[must_use]
pub fn drop_reason(detail: u32) -> &'static str {
    match DropReason::from_code(detail) {
        Some(DropReason::Destination) => {
            "the destination is protected or refused, and the connection has not come through the agent"
        }
        Some(DropReason::Confined) => {
            "a connection to the agent or to loopback leaves by another interface"
        }
        Some(DropReason::LoopbackAddress) => {
            "it is addressed to this host, but leaves by an interface that leads elsewhere"
        }
        Some(DropReason::SourceRouted) => "the sender chose its route (source routing)",
        Some(DropReason::Unreadable) => "its headers cannot be parsed",
        Some(DropReason::Port) => "only the agent answers on this port",
        Some(DropReason::Diverted) => {
            "the connection was turned to the agent and would not have come to it: a rule translates or redirects what \
             goes over loopback, or its source port is one of the agent's"
        }
        Some(DropReason::NoProbe) => {
            "it bears the addresses and ports of a probe of the kubelet's, but is not of that connection: somebody has forged it"
        }
        None => "for a reason this agent does not know",
    }
}
