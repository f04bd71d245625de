//! What the kernel remembers about connections on their way to and from the agent.

use crate::net::{Address, Endpoint};
use crate::workload::WorkloadId;

/// Kept in the storage of a socket that a workload has connected, for as long as the socket lives: what was asked for,
/// and by whom. Such a socket sends nothing beyond the loopback interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    pub destination: Endpoint,
    pub workload: WorkloadId,
    /// Not zero if the connection was turned to the agent; zero if it was for loopback itself.
    pub is_turned: u32,
    pub owner: Owner,
}

/// The owner of a connection, as rules about packets see it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// Options that the application has set on its socket before `connect()`, as far as the connection that crosses the
/// wire in its place can have the same. Zero stands for an option that was not set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Asked {
    /// `SO_PRIORITY`
    pub priority: u32,
    /// `SO_MARK`
    pub mark: u32,
    /// `IP_TOS`, or `IPV6_TCLASS` of an IPv6 connection: DSCP and ECN.
    pub traffic_class: u32,
    /// `TCP_USER_TIMEOUT`, in milliseconds.
    pub user_timeout: u32,
    /// `TCP_KEEPIDLE` in seconds, if `SO_KEEPALIVE` is on.
    pub keepalive_time: u32,
    /// `TCP_KEEPINTVL` in seconds, if `SO_KEEPALIVE` is on.
    pub keepalive_interval: u32,
    /// `TCP_KEEPCNT`, if `SO_KEEPALIVE` is on.
    pub keepalive_probes: u32,
    pub _reserved: u32,
}

/// Key of the `FLOWS` map: a redirected connection as the agent's `accept()` sees its two ends. The local
/// address is part of it because two sockets bound to different addresses may share a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    pub address: Address,
    /// In host byte order.
    pub port: u32,
    /// Where the connection was turned to: [`Endpoint::agents_place`].
    pub place: u32,
}

/// Value of the `FLOWS` map: written before the SYN leaves, taken by the agent when it accepts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Cookie of the application's socket: an entry is only ever removed for the socket that made it.
    pub cookie: u64,
    /// `bpf_ktime_get_ns` (CLOCK_MONOTONIC) when the entry was made.
    pub created_ns: u64,
    pub destination: Endpoint,
    pub workload: WorkloadId,
    pub owner: Owner,
    pub asked: Asked,
}

/// Key of the `CLIENTS` and `WIRES` maps: a socket of the agent, as its far end sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LegKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    pub address: Address,
    /// In host byte order.
    pub port: u32,
    pub _reserved: u32,
}

/// Key of the `UNREACHABLE` map: who, from where, and to where. Rules about packets may route the connections of another user, or
/// those with another mark, differently.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UnreachableKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    pub destination: Endpoint,
    pub workload: WorkloadId,
    pub uid: u32,
    /// `SO_MARK`
    pub mark: u32,
}

/// Value of the `UNREACHABLE` map: how the agent's last attempt to reach a destination has failed. Times are those of
/// `CLOCK_MONOTONIC`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unreachable {
    /// Until when this holds.
    pub until_ns: u64,
    /// When somebody has last been refused because of it.
    pub asked_ns: u64,
    /// Positive.
    pub errno: u32,
    pub _reserved: u32,
}

/// Which of the agent's listeners of a namespace.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// Takes what workloads dial.
    Outbound = 0,
    /// Takes what the network dials.
    Inbound = 1,
}

/// Key of the `LISTENERS` socket map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    pub netns: u64,
    /// A [`ListenerKind`].
    pub kind: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u32,
}

/// Key of the `STEERED` map: an address and a port whose connections `sk_lookup` hands to the agent, or leaves alone.
/// The unspecified address of a family stands for all of its addresses that have no entry; the IPv6 one with port zero
/// for everything that has none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SteeredKey {
    pub netns: u64,
    pub address: Address,
    /// In host byte order.
    pub port: u32,
    pub _reserved: u32,
}

/// Value of the `STEERED` map: the connections go to the agent.
pub const STEER: u32 = 0;
/// Value of the `STEERED` map: the connections go where they would go without the agent.
pub const LEAVE: u32 = 1;

/// Key of the `LOCALS` map: an address of a namespace's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalKey {
    pub netns: u64,
    pub address: Address,
}

/// Key of the `ACTIVATED` map: a port on which the listening sockets of a cgroup stand for a workload's, and must not
/// answer the network themselves either.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ActivatedKey {
    /// Id of the cgroup.
    pub cgroup: u64,
    /// In host byte order.
    pub port: u32,
    pub _reserved: u32,
}

/// Kept in the storage of the agent's socket towards a local server: the workload that it is for, and whose socket it has
/// reached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalLeg {
    /// Id of the cgroup whose listening sockets may stand for the workload's, or zero.
    pub activator: u64,
    pub workload: WorkloadId,
    /// A [`Reached`]: written by the kernel only.
    pub reached: u32,
}

/// Whose listening socket a connection of the agent's has come to.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// None yet, or one that no program of ours runs for.
    Nobody = 0,
    TheWorkload = 1,
    /// Not the workload's. This never changes again.
    SomebodyElse = 2,
}

impl LocalLeg {
    /// What the kernel has seen; an unknown number reads as the worst.
    #[inline(always)]
    #[must_use]
    pub const fn reached(&self) -> Reached {
        match self.reached {
            0 => Reached::Nobody,
            1 => Reached::TheWorkload,
            _ => Reached::SomebodyElse,
        }
    }
}

/// Value of the `SILENT` map: nothing has begun to listen on the port since the agent asked; it is still looking.
pub const ASKED: u32 = 0;
/// Value of the `SILENT` map: nothing listened on the port when the agent looked, and nothing has begun to since.
pub const SILENT: u32 = 1;

/// Key of the `SILENT` map: a port on which nothing listens, at whatever address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SilentKey {
    pub netns: u64,
    /// In host byte order.
    pub port: u32,
    pub _reserved: u32,
}

/// Key of the `GUARDED` map: a port on which a workload must not answer the network itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuardedKey {
    pub workload: WorkloadId,
    /// In host byte order.
    pub port: u32,
}

/// Key of the `SOURCES` longest-prefix trie, without its prefix length: from a namespace to a destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceKey {
    pub netns: u64,
    pub destination: Address,
}

/// Bits of a `SOURCES` key before the address.
pub const SOURCE_PREFIX_BITS: u32 = 64;
