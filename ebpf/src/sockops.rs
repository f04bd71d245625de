//! The life of a redirected connection between its SYN and the agent's `accept()`.

use aya_ebpf::bindings::{
    BPF_NOEXIST, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
    BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_SOCK_OPS_TIMEOUT_INIT,
};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::SockOpsContext;
use sheath_common::counters::Counter;
use sheath_common::event::{Event, EventKind};
use sheath_common::flow::{Connected, Flow, FlowKey, SilentKey};
use sheath_common::workload::NO_WORKLOAD;

use crate::ctx::{self, connected, sock_ops};
use crate::maps::{FLOWS, NAMESPACES, SILENT, contains, copied};
use crate::report::{count, send};
use crate::{options, pods, probes};

/// The return value means nothing for the callbacks used here.
const DONE: u32 = 1;

/// `TCP_SYN_SENT` and `TCP_CLOSE` as BPF names them (`BPF_TCP_*` in the UAPI header).
const SYN_SENT: u32 = 2;
const CLOSE: u32 = 7;

pub fn event(ctx: &SockOpsContext) -> u32 {
    match sock_ops::op(ctx) {
        BPF_SOCK_OPS_TCP_CONNECT_CB => publish(ctx),
        BPF_SOCK_OPS_STATE_CB => {
            withdraw(ctx);
            probe(ctx);
        }
        BPF_SOCK_OPS_TCP_LISTEN_CB => listening(ctx),
        BPF_SOCK_OPS_TIMEOUT_INIT => probe(ctx),
        _ => {}
    }
    DONE
}

/// Where [`event`] does not run, as the cgroup to capture lies elsewhere: only looks for probes.
pub fn event_outside(ctx: &SockOpsContext) -> u32 {
    probe(ctx);
    DONE
}

/// The beginning and the end of a connection of a prober's.
#[inline(always)]
fn probe(ctx: &SockOpsContext) {
    match sock_ops::op(ctx) {
        BPF_SOCK_OPS_TIMEOUT_INIT => probes::record(ctx),
        BPF_SOCK_OPS_STATE_CB if sock_ops::arg(ctx, 1) == CLOSE => probes::forget(ctx),
        _ => {}
    }
}

/// The source port is chosen and the SYN not yet sent: whatever the agent accepts from this socket, it will
/// find its entry.
///
/// An entry that is there already belongs to a connection that waits in the agent's accept queue although its
/// socket is gone. The two could be taken for each other, so neither gets an entry that names a workload: the
/// agent resets both.
#[inline(always)]
fn publish(ctx: &SockOpsContext) {
    let Some(connected) = turned(ctx) else {
        return;
    };
    connected::remember_above(ctx, &connected);
    let mut flow = Flow {
        cookie: ctx::socket_cookie(ctx),
        // SAFETY: the helper takes no pointer.
        created_ns: unsafe { bpf_ktime_get_ns() },
        destination: connected.destination,
        workload: connected.workload,
        owner: connected.owner,
        asked: options::asked(ctx, &connected.destination),
    };
    let key = key(ctx, &connected);
    if FLOWS.insert(&key, &flow, u64::from(BPF_NOEXIST)).is_err() {
        count(Counter::FlowLost);
        flow.workload = NO_WORKLOAD;
        let _ = FLOWS.insert(&key, &flow, 0);
        return;
    }
    // Best effort: without the callback an entry that nobody takes is swept by age.
    let flags = sock_ops::callbacks(ctx) | BPF_SOCK_OPS_STATE_CB_FLAG;
    let _ = ctx.set_cb_flags(flags as i32);
}

/// Takes the entry back if the connection was refused. From any later state the agent will accept it, even
/// after the application has closed it, and needs the entry then.
#[inline(always)]
fn withdraw(ctx: &SockOpsContext) {
    if sock_ops::arg(ctx, 0) != SYN_SENT || sock_ops::arg(ctx, 1) != CLOSE {
        return;
    }
    let Some(connected) = turned(ctx) else {
        return;
    };
    let key = key(ctx, &connected);
    let cookie = copied(&FLOWS, &key).map(|flow| flow.cookie);
    if cookie == Some(ctx::socket_cookie(ctx)) {
        let _ = FLOWS.remove(&key);
    }
}

/// Something begins to listen: from here on its port is worth steering. Where the agent is not, it may be a workload
/// that has just arrived.
#[inline(always)]
fn listening(ctx: &SockOpsContext) {
    let netns = ctx::netns(ctx);
    let port = SilentKey { netns, port: sock_ops::local(ctx).port, _reserved: 0 };
    let _ = SILENT.remove(&port);
    pods::note_listening(ctx, netns);
    if !contains(&NAMESPACES, &netns) {
        send(Event {
            kind: EventKind::ListenElsewhere as u32,
            netns,
            source: sock_ops::local(ctx),
            ..Event::default()
        });
    }
}

/// What was asked for, if the connection was turned to the agent.
#[inline(always)]
fn turned(ctx: &SockOpsContext) -> Option<Connected> {
    connected::of_event(ctx).filter(|connected| connected.is_turned != 0)
}

#[inline(always)]
fn key(ctx: &SockOpsContext, connected: &Connected) -> FlowKey {
    let local = sock_ops::local(ctx);
    FlowKey {
        netns: ctx::netns(ctx),
        address: local.address,
        port: local.port,
        place: connected.destination.turned().agents_place().unwrap_or_default(),
    }
}
