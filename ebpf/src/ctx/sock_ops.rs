//! `bpf_sock_ops`: the callbacks of a TCP socket.

use core::ptr::read_volatile;

use aya_ebpf::bindings::bpf_sock_ops;
use aya_ebpf::programs::SockOpsContext;
use sheath_common::net::{AF_INET6, Address, Endpoint};

#[inline(always)]
pub fn op(ctx: &SockOpsContext) -> u32 {
    // SAFETY: the kernel passes a valid context for the run of the program; this holds for all reads below.
    unsafe { read_volatile(&raw const (*ctx.ops).op) }
}

/// Argument of the callback: the old and the new state for `STATE_CB`.
#[inline(always)]
pub fn arg(ctx: &SockOpsContext, index: usize) -> u32 {
    // SAFETY: as in `op`; `index` is 0 or 1.
    unsafe { read_volatile(&raw const (*ctx.ops).__bindgen_anon_1.args[index]) }
}

/// Local address and port. An IPv4-mapped socket is still without an IPv6 address when its SYN is about to
/// leave, so its remote address tells the family and the IPv4 field the address.
#[inline(always)]
pub fn local(ctx: &SockOpsContext) -> Endpoint {
    // Everything is read before anything is decided: the compiler would otherwise merge the loads of two
    // branches into one through a computed pointer, which the verifier refuses.
    // SAFETY: as in `op`; the indices are in bounds.
    let (family, port, v4, v6, remote) = unsafe {
        let ops: *mut bpf_sock_ops = ctx.ops;
        let v6 = |i: usize| read_volatile(&raw const (*ops).local_ip6[i]);
        let remote = |i: usize| read_volatile(&raw const (*ops).remote_ip6[i]);
        (
            read_volatile(&raw const (*ops).family),
            read_volatile(&raw const (*ops).local_port),
            Address::from_v4(read_volatile(&raw const (*ops).local_ip4)),
            Address::from_v6([v6(0), v6(1), v6(2), v6(3)]),
            Address::from_v6([remote(0), remote(1), remote(2), remote(3)]),
        )
    };
    let address = if family == AF_INET6 && !remote.is_v4() { v6 } else { v4 };
    Endpoint { address, port }
}

/// Remote address and port.
#[inline(always)]
pub fn remote(ctx: &SockOpsContext) -> Endpoint {
    // SAFETY: as in `local`.
    let (family, port, v4, v6) = unsafe {
        let ops: *mut bpf_sock_ops = ctx.ops;
        let word = |i: usize| read_volatile(&raw const (*ops).remote_ip6[i]);
        (
            read_volatile(&raw const (*ops).family),
            read_volatile(&raw const (*ops).remote_port),
            Address::from_v4(read_volatile(&raw const (*ops).remote_ip4)),
            Address::from_v6([word(0), word(1), word(2), word(3)]),
        )
    };
    Endpoint { address: if family == AF_INET6 { v6 } else { v4 }, port: u32::from_be(port) }
}

/// The first sequence number that the peer has not acknowledged.
#[inline(always)]
pub fn unacknowledged(ctx: &SockOpsContext) -> u32 {
    // SAFETY: as in `op`.
    unsafe { read_volatile(&raw const (*ctx.ops).snd_una) }
}

/// The callbacks that are asked for (`BPF_SOCK_OPS_*_CB_FLAG`).
#[inline(always)]
pub fn callbacks(ctx: &SockOpsContext) -> u32 {
    // SAFETY: as in `op`.
    unsafe { read_volatile(&raw const (*ctx.ops).bpf_sock_ops_cb_flags) }
}
