//! `__sk_buff`: a packet and its socket.

use core::ptr::read_volatile;

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use aya_ebpf::programs::SkBuffContext;
use sheath_common::net::Address;
use sheath_common::workload::{NO_WORKLOAD, WorkloadId};

use super::connected;

/// Index of the interface a packet is about to leave by, or has come by.
#[inline(always)]
pub fn interface(ctx: &SkBuffContext) -> u32 {
    // SAFETY: the kernel passes a valid context for the run of the program; this holds for all reads below.
    unsafe { read_volatile(&raw const (*ctx.skb.skb).ifindex) }
}

#[inline(always)]
pub fn is_v4(ctx: &SkBuffContext) -> bool {
    const ETH_P_IP: u16 = 0x0800;
    // SAFETY: as in `interface`.
    let protocol = unsafe { read_volatile(&raw const (*ctx.skb.skb).protocol) };
    protocol == u32::from(ETH_P_IP.to_be())
}

/// Calls `look` with the packet's socket, if it is whole. That of a connection which is not accepted yet is its listener.
#[inline(always)]
pub fn with_socket<T>(ctx: &SkBuffContext, none: T, look: impl FnOnce(*mut bpf_sock) -> T) -> T {
    // SAFETY: both pointers are checked for null before they are used.
    unsafe {
        let sk = read_volatile(&raw const (*ctx.skb.skb).__bindgen_anon_2.sk);
        if sk.is_null() {
            return none;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() { none } else { look(sk) }
    }
}

/// The TCP (or other) socket that a packet belongs to.
pub struct Socket {
    pub protocol: u32,
    pub state: u32,
    pub local_port: u32,
    pub remote_port: u32,
    /// As far as it speaks IPv4.
    pub remote_v4: Address,
    /// As far as it speaks IPv6.
    pub remote_v6: Address,
    /// True if a workload has connected it to the agent or to loopback: `confined_by`.
    pub is_confined: bool,
    /// True if that was to the agent.
    pub is_turned: bool,
    pub confined_by: WorkloadId,
}

/// The packet's socket.
#[inline(always)]
pub fn socket(ctx: &SkBuffContext) -> Option<Socket> {
    // SAFETY: the socket is whole and not null; the storage helper takes one.
    with_socket(ctx, None, |sk| unsafe {
        let protocol = read_volatile(&raw const (*sk).protocol);
        let state = read_volatile(&raw const (*sk).state);
        let local_port = read_volatile(&raw const (*sk).src_port);
        let remote_port = read_volatile(&raw const (*sk).dst_port);
        let v4 = read_volatile(&raw const (*sk).dst_ip4);
        let word = |i: usize| read_volatile(&raw const (*sk).dst_ip6[i]);
        let v6 = [word(0), word(1), word(2), word(3)];
        // Not an option: the verifier does not let one be copied whose value is not there.
        let (is_confined, is_turned, confined_by) = match connected::of_socket(sk.cast()) {
            Some(connected) => (true, connected.is_turned != 0, connected.workload),
            None => (false, false, NO_WORKLOAD),
        };
        Some(Socket {
            protocol,
            state,
            local_port,
            remote_port: u32::from(u16::from_be(remote_port)),
            remote_v4: Address::from_v4(v4),
            remote_v6: Address::from_v6(v6),
            is_confined,
            is_turned,
            confined_by,
        })
    })
}
