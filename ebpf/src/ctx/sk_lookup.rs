//! `bpf_sk_lookup`: the search for the socket of a new connection.

use core::ptr::read_volatile;

use aya_ebpf::programs::SkLookupContext;
use sheath_common::net::{AF_INET6, Address, Endpoint};

/// Set by the loader: the cookie of the network namespace that this copy of the `sk_lookup` program is
/// attached to (the helper that would tell is not open to it).
#[unsafe(no_mangle)]
static NETNS: u64 = 0;

/// Cookie of the `sk_lookup` program's network namespace.
#[inline(always)]
pub fn netns() -> u64 {
    // SAFETY: a read of a static; volatile because the loader, not the program, writes it.
    unsafe { read_volatile(&raw const NETNS) }
}

/// What `sk_lookup` is asked about.
pub struct Lookup {
    pub family: u32,
    pub protocol: u32,
    pub local: Endpoint,
    pub remote: Endpoint,
    pub ingress_ifindex: u32,
}

#[inline(always)]
pub fn lookup(ctx: &SkLookupContext) -> Lookup {
    // As in `sock_ops::local`: first read, then decide.
    // SAFETY: the kernel passes a valid context for the run of the program; the indices are in bounds.
    unsafe {
        let lookup = ctx.lookup;
        let local = |i: usize| read_volatile(&raw const (*lookup).local_ip6[i]);
        let remote = |i: usize| read_volatile(&raw const (*lookup).remote_ip6[i]);
        let family = read_volatile(&raw const (*lookup).family);
        let v4 = (
            Address::from_v4(read_volatile(&raw const (*lookup).local_ip4)),
            Address::from_v4(read_volatile(&raw const (*lookup).remote_ip4)),
        );
        let v6 = (
            Address::from_v6([local(0), local(1), local(2), local(3)]),
            Address::from_v6([remote(0), remote(1), remote(2), remote(3)]),
        );
        let local_port = read_volatile(&raw const (*lookup).local_port);
        let remote_port = read_volatile(&raw const (*lookup).remote_port);
        let (local, remote) = if family == AF_INET6 { v6 } else { v4 };
        Lookup {
            family,
            protocol: read_volatile(&raw const (*lookup).protocol),
            local: Endpoint { address: local, port: local_port },
            remote: Endpoint { address: remote, port: u32::from(u16::from_be(remote_port)) },
            ingress_ifindex: read_volatile(&raw const (*lookup).ingress_ifindex),
        }
    }
}
