//! Names and sizes of the maps, and the version of all their shapes together.

/// Version of everything pinned: map names, key and value layouts, meanings. It is part of the pin path
/// (`/sys/fs/bpf/sheath/<instance>/v<ABI>/`), so an agent never adopts maps of another shape.
pub const ABI: u32 = 6;

/// Cgroups that are workloads, or that workloads lie below.
pub const MAX_WORKLOADS: u32 = 32_768;
/// Cgroups that were workloads and are gone.
pub const MAX_DEPARTED: u32 = 65_536;
/// Pods of the node that somebody has decided about.
pub const MAX_PODS: u32 = 16_384;
/// Rules about destinations that are more than one address.
pub const MAX_PREFIXES: u32 = 131_072;
/// Rules about single addresses.
pub const MAX_ADDRESSES: u32 = 500_000;
/// Addresses, or addresses with a port, that the directory knows.
pub const MAX_DIRECTORY: u32 = 524_288;
/// Of these, ports of Services at their addresses.
pub const MAX_SERVICE_PORTS: u32 = 131_072;
/// Of these, addresses of Services for whose ports there is no room: they are refused.
pub const MAX_CLOSED_SERVICES: u32 = 32_768;
/// Connections between SYN and `accept()`.
pub const MAX_FLOWS: u32 = 65_536;
/// Sockets of the agent towards local applications.
pub const MAX_LEGS: u32 = 131_072;
/// Destinations that could not be reached a moment ago; the least recently used makes room for the next.
pub const MAX_UNREACHABLE: u32 = 16_384;
/// Network namespaces served.
pub const MAX_NAMESPACES: u32 = 4_096;
/// Source addresses: a few for each namespace.
pub const MAX_SOURCES: u32 = 65_536;
/// Addresses of namespaces' own.
pub const MAX_LOCALS: u32 = 65_536;
/// Ports, over all namespaces or workloads.
pub const MAX_PORTS: u32 = 65_536;
/// Cgroups of probers: a node has one kubelet.
pub const MAX_PROBERS: u32 = 64;
/// Connections that probers have open.
pub const MAX_PROBES: u32 = 16_384;
/// Bytes of the event ring buffer.
pub const EVENTS_BYTES: u32 = 256 * 1024;

/// Deepest cgroup, counted from the root, that can be the root of a workload.
pub const MAX_CGROUP_DEPTH: u32 = 16;
