//! `connect()`, before the kernel looks at the address: where policy meets the application.
//!
//! Runs for `MSG_FASTOPEN` and `TCP_FASTOPEN_CONNECT`, for MPTCP and for io_uring alike. An IPv4-mapped
//! destination of an IPv6 socket comes here through the IPv6 entry point.

use aya_ebpf::programs::SockAddrContext;
use sheath_common::counters::Counter;
use sheath_common::event::{Event, EventKind};
use sheath_common::flow::Redirect;
use sheath_common::net::{AGENT_PORT, Address, Endpoint, IPPROTO_TCP};
use sheath_common::verdict::{Denial, Verdict, decide};
use sheath_common::workload::Workload;

use crate::ctx::Family;
use crate::maps::{NAMESPACES, candidates};
use crate::report::{by_current_task, count, send};
use crate::{ctx, options, workload};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const ECONNREFUSED: i32 = 111;

pub fn connect<F: Family>(ctx: &SockAddrContext) -> i32 {
    if ctx::protocol(ctx) != IPPROTO_TCP {
        return ALLOW;
    }
    let Some(workload) = workload::of_current_task() else {
        ctx::forget(ctx);
        return ALLOW;
    };
    let destination = F::endpoint(ctx);
    let rules = candidates(workload.id, &destination);
    match decide(workload.outbound(), &destination, &rules) {
        Verdict::Bypass => {
            ctx::forget(ctx);
            count(Counter::ConnectBypassed);
            ALLOW
        }
        Verdict::Deny(reason) => refuse(ctx, &workload, &destination, reason),
        Verdict::Protect => protect::<F>(ctx, &workload, &destination),
    }
}

/// Turns the connection to the agent's listener in the caller's own namespace.
#[inline(always)]
fn protect<F: Family>(ctx: &SockAddrContext, workload: &Workload, destination: &Endpoint) -> i32 {
    // In a namespace that the agent does not serve, whoever sits on the agent's port is not the agent.
    let netns = ctx::netns(ctx);
    // SAFETY: only the presence of the entry matters.
    if unsafe { NAMESPACES.get(&netns) }.is_none() {
        return refuse(ctx, workload, destination, Denial::NamespaceNotReady);
    }
    let redirect = Redirect {
        destination: *destination,
        workload: workload.id,
        owner: options::owner_of_current_task(),
    };
    if !ctx::remember(ctx, &redirect) {
        return refuse(ctx, workload, destination, Denial::NoMemory);
    }
    let listener =
        if destination.address.is_v4() { Address::LOOPBACK_V4 } else { Address::LOOPBACK_V6 };
    F::set_endpoint(ctx, &Endpoint { address: listener, port: AGENT_PORT as u32 });
    count(Counter::ConnectProtected);
    ALLOW
}

#[inline(always)]
fn refuse(
    ctx: &SockAddrContext,
    workload: &Workload,
    destination: &Endpoint,
    reason: Denial,
) -> i32 {
    ctx::forget(ctx);
    count(Counter::ConnectDenied);
    send(Event {
        detail: reason as u32,
        netns: ctx::netns(ctx),
        workload: workload.id,
        destination: *destination,
        ..by_current_task(EventKind::ConnectDenied)
    });
    ctx::set_errno(match reason {
        Denial::NamespaceNotReady => ECONNREFUSED,
        Denial::NoMemory => ENOMEM,
        Denial::UnknownDestination | Denial::AgentPort | Denial::LinkLocal => EPERM,
    });
    REFUSE
}
