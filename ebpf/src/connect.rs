//! `connect()`, before the kernel looks at the address: where policy meets the application.
//!
//! Runs for `MSG_FASTOPEN` and `TCP_FASTOPEN_CONNECT`, for MPTCP and for io_uring alike. An IPv4-mapped
//! destination of an IPv6 socket comes here through the IPv6 entry point.

use aya_ebpf::programs::SockAddrContext;
use sheath_common::counters::Counter;
use sheath_common::event::{Event, EventKind};
use sheath_common::flow::{Connected, UnreachableKey};
use sheath_common::guard::{LOOPBACK, is_outbound};
use sheath_common::net::{Endpoint, IPPROTO_TCP};
use sheath_common::verdict::{Best, Denial, Verdict, decide};
use sheath_common::workload::Workload;

use crate::ctx::sock_addr::{self, Family};
use crate::ctx::{self, connected};
use crate::maps::{NAMESPACES, best_rule, contains, unreachable};
use crate::report::{by_current_task, count, send};
use crate::{options, pods, probes, workload};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const EOPNOTSUPP: i32 = 95;
const ECONNREFUSED: i32 = 111;

/// Where [`connect`] does not run, as the cgroup to capture lies elsewhere: only notes whose socket it is.
pub fn connect_outside(ctx: &SockAddrContext) -> i32 {
    if sock_addr::protocol(ctx) == IPPROTO_TCP {
        probes::mark(ctx);
    }
    ALLOW
}

pub fn connect<F: Family>(ctx: &SockAddrContext) -> i32 {
    if sock_addr::protocol(ctx) != IPPROTO_TCP {
        return ALLOW;
    }
    let workload = workload::of_current_task();
    if workload.is_nobody() {
        connected::forget(ctx);
        probes::mark(ctx);
        return ALLOW;
    }
    if workload.is_held() {
        return connect_held::<F>(ctx, &workload);
    }
    let destination = F::endpoint(ctx);
    let best = best_rule(workload.id, &destination);
    match decide(workload.outbound(), &destination, best) {
        Verdict::Bypass => bypass(ctx, &workload, &destination),
        Verdict::Deny(reason) => refuse(ctx, &workload, &destination, reason),
        Verdict::Protect => protect::<F>(ctx, &workload, &destination),
    }
}

/// A pod that nobody has decided about. No rule is about it: it has loopback, and nothing else.
#[inline(always)]
fn connect_held<F: Family>(ctx: &SockAddrContext, workload: &Workload) -> i32 {
    if pods::spare(ctx::netns(ctx)) {
        connected::forget(ctx);
        pods::note_connecting(ctx);
        count(Counter::ConnectBypassed);
        return ALLOW;
    }
    let destination = F::endpoint(ctx);
    match decide(workload.outbound(), &destination, Best::default()) {
        Verdict::Bypass => bypass(ctx, workload, &destination),
        Verdict::Deny(Denial::AgentPort) => refuse(ctx, workload, &destination, Denial::AgentPort),
        Verdict::Deny(_) | Verdict::Protect => {
            count(Counter::ConnectDeniedUndecided);
            refuse(ctx, workload, &destination, Denial::PodUndecided)
        }
    }
}

/// Leaves the connection alone. One to loopback is left alone for what loopback is, so there it stays: the guard does
/// not rely on the socket having been made by the workload.
#[inline(always)]
fn bypass(ctx: &SockAddrContext, workload: &Workload, destination: &Endpoint) -> i32 {
    let is_local = destination.address.is_loopback() || destination.address.is_unspecified();
    if is_local && is_outbound(workload) {
        let connected =
            Connected { destination: *destination, workload: workload.id, ..Connected::default() };
        if !connected::remember(ctx, &connected) {
            return refuse(ctx, workload, destination, Denial::NoMemory);
        }
    } else {
        connected::forget(ctx);
    }
    count(Counter::ConnectBypassed);
    ALLOW
}

/// Turns the connection to the agent's listener in the caller's own namespace.
#[inline(always)]
fn protect<F: Family>(ctx: &SockAddrContext, workload: &Workload, destination: &Endpoint) -> i32 {
    if workload.is_refused() {
        return refuse(ctx, workload, destination, Denial::NotEnrolled);
    }
    // Nothing would come of it but a time-out.
    if workload.is_cut_off(destination.address.is_v4()) {
        return refuse(ctx, workload, destination, Denial::CutOff);
    }
    // In a namespace that the agent does not serve, whoever sits on the agent's port is not the agent.
    let netns = ctx::netns(ctx);
    if !contains(&NAMESPACES, &netns) {
        return refuse(ctx, workload, destination, Denial::NamespaceNotReady);
    }
    // Bound to another device, its packets would leave by that, whatever their destination is turned to.
    let device = sock_addr::bound_device(ctx);
    if device != 0 && device != LOOPBACK {
        return refuse(ctx, workload, destination, Denial::BoundToDevice);
    }
    let owner = options::owner_of_current_task();
    let key = UnreachableKey {
        netns,
        destination: *destination,
        workload: workload.id,
        uid: owner.uid,
        mark: sock_addr::mark(ctx),
    };
    if let Some(errno) = unreachable(&key) {
        return refuse_with(ctx, workload, destination, Denial::Unreachable, errno);
    }
    let connected =
        Connected { destination: *destination, workload: workload.id, is_turned: 1, owner };
    if !connected::remember(ctx, &connected) {
        return refuse(ctx, workload, destination, Denial::NoMemory);
    }
    F::set_endpoint(ctx, &destination.turned());
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
    let errno = match reason {
        // Clients try again.
        Denial::NamespaceNotReady
        | Denial::Unreachable
        | Denial::PodUndecided
        | Denial::NobodyReady => ECONNREFUSED,
        Denial::NoMemory => ENOMEM,
        Denial::BoundToDevice => EOPNOTSUPP,
        Denial::UnknownDestination
        | Denial::PlainDestination
        | Denial::AgentPort
        | Denial::LinkLocal
        | Denial::NotEnrolled
        | Denial::CutOff => EPERM,
    };
    refuse_with(ctx, workload, destination, reason, errno)
}

#[inline(always)]
fn refuse_with(
    ctx: &SockAddrContext,
    workload: &Workload,
    destination: &Endpoint,
    reason: Denial,
    errno: i32,
) -> i32 {
    connected::forget(ctx);
    count(Counter::ConnectDenied);
    send(Event {
        detail: reason as u32,
        netns: ctx::netns(ctx),
        workload: workload.id,
        destination: *destination,
        ..by_current_task(EventKind::ConnectDenied)
    });
    sock_addr::set_errno(errno);
    REFUSE
}
