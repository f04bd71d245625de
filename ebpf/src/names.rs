//! `getpeername()`, `getsockname()` and the address that `accept()` returns: the application sees the
//! connection it asked for, not the one to the agent.

use aya_ebpf::programs::SockAddrContext;
use sheath_common::flow::LegKey;

use crate::ctx::sock_addr::Family;
use crate::ctx::{self, connected};
use crate::maps::{CLIENTS, copied, source};

/// These hooks may only rewrite, never refuse.
const ALLOW: i32 = 1;

/// A client sees the destination it asked for; a server sees the client that its connection stands for.
pub fn peer<F: Family>(ctx: &SockAddrContext) -> i32 {
    if let Some(connected) = connected::of_call(ctx).filter(|connected| connected.is_turned != 0) {
        F::set_endpoint(ctx, &connected.destination);
        return ALLOW;
    }
    let seen = F::endpoint(ctx);
    let key =
        LegKey { netns: ctx::netns(ctx), address: seen.address, port: seen.port, _reserved: 0 };
    if let Some(client) = copied(&CLIENTS, &key) {
        F::set_endpoint(ctx, &client);
    }
    ALLOW
}

/// A redirected socket that the kernel gave a loopback address shows the workload's own; the port is the
/// socket's own in any case.
pub fn own<F: Family>(ctx: &SockAddrContext) -> i32 {
    if !F::ip(ctx).is_loopback() {
        return ALLOW;
    }
    if let Some(connected) = connected::of_call(ctx)
        && connected.is_turned != 0
        && let Some(address) = source(ctx::netns(ctx), &connected.destination.address)
    {
        F::set_ip(ctx, &address);
    }
    ALLOW
}
