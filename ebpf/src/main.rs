//! The BPF programs: entry points only. Each reads like a table row; what it does stands in the module it
//! calls. No function may bear the name of its ELF section (bpf-linker refuses the clash).
//!
//! | program            | hook                      | module      |
//! |--------------------|---------------------------|-------------|
//! | `connect_v4/_v6`   | cgroup/connect4, 6        | `connect`   |
//! | `peername_v4/_v6`  | cgroup/getpeername4, 6    | `names`     |
//! | `sockname_v4/_v6`  | cgroup/getsockname4, 6    | `names`     |
//! | `socket_events`    | sock_ops                  | `sockops`   |
//! | `steer`            | sk_lookup                 | `lookup`    |
//! | `egress_guard`     | cgroup_skb/egress         | `guard`     |
//! | `ingress_guard`    | cgroup_skb/ingress        | `guard`, `local_leg` |
//! | `prober_connect_v4/_v6` | cgroup/connect4, 6   | `connect`, `probes` |
//! | `prober_events`    | sock_ops                  | `sockops`, `probes` |
//! | `socket_created`   | cgroup/sock_create        | `coverage`  |
//! | `cgroup_created`   | tracepoint cgroup_mkdir   | `enrol`, `select`, `pods` |
//! | `cgroup_removed`   | tracepoint cgroup_rmdir   | `enrol`     |
//! | `cgroup_populated` | tracepoint cgroup_notify_populated | `enrol` |
//!
//! # Global functions
//!
//! The verifier follows an ordinary function once for each state in which it is called: one that has many paths and is
//! called in many states costs the product of the two. A *global* function (`BTF_FUNC_GLOBAL`; Linux 5.6, commit
//! 51c39bb1d5d1) it follows once, for any arguments, and after a call it goes on with any result. That has brought
//! `egress_guard` from 174 000 verified instructions down to 12 000.
//!
//! | function                   | module     |
//! |----------------------------|------------|
//! | `workload_of_current_task` | `workload` |
//! | `workload_of_packet`       | `workload` |
//! | `workload_guarding_packet` | `workload` |
//! | `detour_v4`, `detour_v6`   | `headers`  |
//! | `best_rule_bits`           | `maps`     |
//! | `socket_is_spared`         | `pods`     |
//!
//! The price is a narrow interface. A global function is `extern "C"` and exported. It takes at most five arguments: the
//! program's context, numbers, and pointers to memory of a known size, which it must check for null. It returns one number.
//! The verifier forgets what it knew of the memory, and knows nothing of the number. On Linux 6.1 such memory cannot be the key
//! of a map. So those functions are global that have many paths (cgroups, rules, headers) and a short answer; the others are
//! inlined.

#![no_std]
#![no_main]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "references are what map methods take in this and in later versions of aya-ebpf"
)]

mod connect;
mod coverage;
mod ctx;
mod enrol;
mod guard;
mod headers;
mod local_leg;
mod lookup;
mod maps;
mod names;
mod options;
mod pods;
mod probes;
mod report;
mod select;
mod socket;
mod sockops;
mod workload;

use aya_ebpf::macros::{
    cgroup_skb, cgroup_sock, cgroup_sock_addr, sk_lookup, sock_ops, tracepoint,
};
use aya_ebpf::programs::{
    SkBuffContext, SkLookupContext, SockAddrContext, SockContext, SockOpsContext, TracePointContext,
};

use crate::ctx::sock_addr::{V4, V6};

#[cgroup_sock_addr(connect4)]
pub fn connect_v4(ctx: SockAddrContext) -> i32 {
    connect::connect::<V4>(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn connect_v6(ctx: SockAddrContext) -> i32 {
    connect::connect::<V6>(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
pub fn peername_v4(ctx: SockAddrContext) -> i32 {
    names::peer::<V4>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn peername_v6(ctx: SockAddrContext) -> i32 {
    names::peer::<V6>(&ctx)
}

#[cgroup_sock_addr(getsockname4)]
pub fn sockname_v4(ctx: SockAddrContext) -> i32 {
    names::own::<V4>(&ctx)
}

#[cgroup_sock_addr(getsockname6)]
pub fn sockname_v6(ctx: SockAddrContext) -> i32 {
    names::own::<V6>(&ctx)
}

#[sock_ops]
pub fn socket_events(ctx: SockOpsContext) -> u32 {
    sockops::event(&ctx)
}

#[cgroup_sock_addr(connect4)]
pub fn prober_connect_v4(ctx: SockAddrContext) -> i32 {
    connect::connect_outside(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn prober_connect_v6(ctx: SockAddrContext) -> i32 {
    connect::connect_outside(&ctx)
}

#[sock_ops]
pub fn prober_events(ctx: SockOpsContext) -> u32 {
    sockops::event_outside(&ctx)
}

#[sk_lookup]
pub fn steer(ctx: SkLookupContext) -> u32 {
    lookup::steer(&ctx)
}

#[cgroup_skb(egress)]
pub fn egress_guard(ctx: SkBuffContext) -> i32 {
    guard::egress(&ctx)
}

#[cgroup_skb(ingress)]
pub fn ingress_guard(ctx: SkBuffContext) -> i32 {
    guard::ingress(&ctx)
}

#[cgroup_sock(sock_create)]
pub fn socket_created(ctx: SockContext) -> i32 {
    coverage::socket_created(&ctx)
}

#[tracepoint]
pub fn cgroup_created(ctx: TracePointContext) -> u32 {
    enrol::created(&ctx)
}

#[tracepoint]
pub fn cgroup_removed(ctx: TracePointContext) -> u32 {
    enrol::removed(&ctx)
}

#[tracepoint]
pub fn cgroup_populated(ctx: TracePointContext) -> u32 {
    enrol::populated(&ctx)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// `bpf_loop`, `bpf_set_retval` and the others used here are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
