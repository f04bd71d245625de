//! Every read and write of a program's context, but for the records of tracepoints (`enrol`).
//!
//! Fields are read one 32-bit word at a time with volatile accesses: the verifier refuses the wider loads
//! that the compiler would otherwise merge them into.

pub mod connected;
pub mod packet;
pub mod sk_lookup;
pub mod sock_addr;
pub mod sock_ops;

use core::ptr::read_volatile;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::programs::SockContext;

/// Cookie of the socket's network namespace.
#[inline(always)]
pub fn netns(ctx: &impl EbpfContext) -> u64 {
    // SAFETY: the helper takes the program's own context.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// Cookie of the socket.
#[inline(always)]
pub fn socket_cookie(ctx: &impl EbpfContext) -> u64 {
    // SAFETY: the helper takes the program's own context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// Protocol of a socket that is being made.
#[inline(always)]
pub fn new_sockets_protocol(ctx: &SockContext) -> u32 {
    // SAFETY: the kernel passes a valid context for the run of the program.
    unsafe { read_volatile(&raw const (*ctx.sock).protocol) }
}
