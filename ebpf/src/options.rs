//! What an application has asked of a socket, and whose it is: the agent's connection in its place shall have the same.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_uid_gid;
use aya_ebpf::helpers::generated::bpf_getsockopt;
use aya_ebpf::programs::SockOpsContext;
use sheath_common::flow::{Asked, Owner};
use sheath_common::net::Endpoint;

// As in the UAPI headers `asm-generic/socket.h`, `linux/in.h`, `linux/in6.h` and `linux/tcp.h`.
const SOL_SOCKET: i32 = 1;
const SO_KEEPALIVE: i32 = 9;
const SO_PRIORITY: i32 = 12;
const SO_MARK: i32 = 36;
const IPPROTO_IP: i32 = 0;
const IP_TOS: i32 = 1;
const IPPROTO_IPV6: i32 = 41;
const IPV6_TCLASS: i32 = 67;
const IPPROTO_TCP: i32 = 6;
const TCP_KEEPIDLE: i32 = 4;
const TCP_KEEPINTVL: i32 = 5;
const TCP_KEEPCNT: i32 = 6;
const TCP_USER_TIMEOUT: i32 = 18;

/// Of the socket that is about to connect to `destination`. All of these options may be read here since Linux 6.1 (net/core/filter.c,
/// `__bpf_getsockopt`).
#[inline(always)]
pub fn asked(ctx: &SockOpsContext, destination: &Endpoint) -> Asked {
    // An IPv6 socket that is connected to an IPv4-mapped address sends IPv4.
    let traffic_class = match destination.address.is_v4() {
        true => option(ctx, IPPROTO_IP, IP_TOS),
        false => option(ctx, IPPROTO_IPV6, IPV6_TCLASS),
    };
    let mut asked = Asked {
        priority: option(ctx, SOL_SOCKET, SO_PRIORITY),
        mark: option(ctx, SOL_SOCKET, SO_MARK),
        traffic_class,
        user_timeout: option(ctx, IPPROTO_TCP, TCP_USER_TIMEOUT),
        ..Asked::default()
    };
    if option(ctx, SOL_SOCKET, SO_KEEPALIVE) != 0 {
        asked.keepalive_time = option(ctx, IPPROTO_TCP, TCP_KEEPIDLE);
        asked.keepalive_interval = option(ctx, IPPROTO_TCP, TCP_KEEPINTVL);
        asked.keepalive_probes = option(ctx, IPPROTO_TCP, TCP_KEEPCNT);
    }
    asked
}

/// An option's value; zero where the kernel does not tell.
#[inline(always)]
fn option(ctx: &SockOpsContext, level: i32, name: i32) -> u32 {
    let mut value = 0_u32;
    let place = (&raw mut value).cast::<c_void>();
    // SAFETY: the helper takes the program's own context, and writes no more than the four bytes it is told of.
    let failed = unsafe { bpf_getsockopt(ctx.as_ptr(), level, name, place, 4) } != 0;
    if failed { 0 } else { value }
}

/// Of the process that calls `connect()`.
#[inline(always)]
pub fn owner_of_current_task() -> Owner {
    let both = bpf_get_current_uid_gid();
    Owner { uid: both as u32, gid: (both >> 32) as u32 }
}
