//! What the kernel remembers about connections on their way to and from the agent.

use crate::net::{Address, Endpoint};
use crate::workload::WorkloadId;

/// Kept in the storage of a redirected socket for as long as the socket lives: what its owner asked for, and
/// who its owner was at `connect()`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    pub destination: Endpoint,
    pub workload: WorkloadId,
    pub owner: Owner,
}

/// Whose a connection is, as rules about packets see it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What the owner of a connection has asked of its socket before `connect()`, as far as the connection that crosses the
/// wire in its place can have the same. Zero is what nobody has asked for.
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

/// Key of the `FLOWS` map: a redirected connection as the agent's `accept()` sees its far end. The local
/// address is part of it because two sockets bound to different addresses may share a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    pub address: Address,
    /// In host byte order.
    pub port: u32,
    pub _reserved: u32,
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
pub type LegKey = FlowKey;

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

/// Key of the `STEERED` map: a port whose connections `sk_lookup` hands to the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SteeredKey {
    pub netns: u64,
    /// In host byte order; zero stands for every port.
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
