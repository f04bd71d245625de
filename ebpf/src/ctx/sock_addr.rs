//! `bpf_sock_addr`: the socket and the address of a system call.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::programs::SockAddrContext;
use sheath_common::net::{Address, Endpoint, port_from_sock_addr, port_to_sock_addr};

#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u32 {
    // SAFETY: the kernel passes a valid context for the run of the program; this holds for all reads below.
    unsafe { read_volatile(&raw const (*ctx.sock_addr).protocol) }
}

/// Index of the interface that the socket is bound to, a VRF's included; zero if it is to none.
#[inline(always)]
pub fn bound_device(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as in `protocol`; the socket of a sock_addr context is never null.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        read_volatile(&raw const (*sk).bound_dev_if)
    }
}

/// The socket's `SO_MARK`.
#[inline(always)]
pub fn mark(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as in `protocol`; the socket of a sock_addr context is never null.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        read_volatile(&raw const (*sk).mark)
    }
}

/// Errnos are not larger (`MAX_ERRNO` in the kernel's `include/linux/err.h`).
const MAX_ERRNO: i32 = 4095;

/// Makes the system call fail with `errno` (positive) when the program then returns 0.
#[inline(always)]
pub fn set_errno(errno: i32) {
    // Linux 7.2 takes the program only if its verifier knows that this is an errno. Out of a map, it may be anything.
    // SAFETY: the helper takes no pointer.
    unsafe { bpf_set_retval(-(errno & MAX_ERRNO)) };
}

/// The family of a sock_addr hook. Which address fields a program may touch follows from the hook it is for,
/// so the choice is made when it is compiled.
pub trait Family {
    fn ip(ctx: &SockAddrContext) -> Address;
    fn set_ip(ctx: &SockAddrContext, address: &Address);

    /// The address of the system call.
    #[inline(always)]
    fn endpoint(ctx: &SockAddrContext) -> Endpoint {
        // SAFETY: as in `protocol`.
        let port = unsafe { read_volatile(&raw const (*ctx.sock_addr).user_port) };
        Endpoint { address: Self::ip(ctx), port: u32::from(port_from_sock_addr(port)) }
    }

    /// Replaces the address of the system call.
    #[inline(always)]
    fn set_endpoint(ctx: &SockAddrContext, endpoint: &Endpoint) {
        Self::set_ip(ctx, &endpoint.address);
        let port = port_to_sock_addr(endpoint.port as u16);
        // SAFETY: as in `protocol`; the field is writable in all hooks used here.
        unsafe { write_volatile(&raw mut (*ctx.sock_addr).user_port, port) };
    }
}

/// `AF_INET` sockets.
pub struct V4;

/// `AF_INET6` sockets, IPv4-mapped addresses included.
pub struct V6;

impl Family for V4 {
    #[inline(always)]
    fn ip(ctx: &SockAddrContext) -> Address {
        // SAFETY: as in `protocol`.
        Address::from_v4(unsafe { read_volatile(&raw const (*ctx.sock_addr).user_ip4) })
    }

    #[inline(always)]
    fn set_ip(ctx: &SockAddrContext, address: &Address) {
        // SAFETY: as in `protocol`; the field is writable in all hooks used here.
        unsafe { write_volatile(&raw mut (*ctx.sock_addr).user_ip4, address.words[3]) };
    }
}

impl Family for V6 {
    #[inline(always)]
    fn ip(ctx: &SockAddrContext) -> Address {
        // SAFETY: as in `protocol`; the indices are in bounds.
        let word = |i: usize| unsafe { read_volatile(&raw const (*ctx.sock_addr).user_ip6[i]) };
        Address::from_v6([word(0), word(1), word(2), word(3)])
    }

    #[inline(always)]
    fn set_ip(ctx: &SockAddrContext, address: &Address) {
        // SAFETY: as in `protocol`; the fields are writable in all hooks used here, the indices in bounds.
        let set = |i: usize| unsafe {
            write_volatile(&raw mut (*ctx.sock_addr).user_ip6[i], address.words[i]);
        };
        set(0);
        set(1);
        set(2);
        set(3);
    }
}
