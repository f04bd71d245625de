//! The second line: drops what capture should have caught, without relying on it.
//!
//! What is dropped, and why, is in [`sheath_common::guard`]; here its facts are gathered, the cheap ones first. Most
//! come from the socket: TCP lets nobody open a connection but a socket in the state for it, so no header needs to be
//! followed for that. Over loopback it is asked whether what was turned to the agent comes to it. The agent's own sockets belong to the agent's cgroup, which is no workload.

use aya_ebpf::programs::SkBuffContext;
use sheath_common::counters::Counter;
use sheath_common::event::{Event, EventKind};
use sheath_common::flow::GuardedKey;
use sheath_common::guard::{
    self, Departure, DropReason, Finding, LOOPBACK, Route, SocketState, may_open,
};
use sheath_common::net::{Address, Endpoint, IPPROTO_TCP};
use sheath_common::verdict::{Verdict, decide};
use sheath_common::workload::{Workload, WorkloadId};

use crate::ctx::{self, packet};
use crate::headers::{Addresses, addresses, detour, port_of};
use crate::maps::{GUARDED, best_rule, contains};
use crate::probes::Arrival;
use crate::report::{count, send};
use crate::{local_leg, pods, probes, socket, workload};

const PASS: i32 = 1;
const DROP: i32 = 0;

pub fn egress(ctx: &SkBuffContext) -> i32 {
    let interface = packet::interface(ctx);
    let is_local = interface == LOOPBACK;
    // Most packets over loopback cost no more than this.
    if is_local && !socket::is_in(ctx, SocketState::Opening) {
        return PASS;
    }
    let Some(socket) = packet::socket(ctx) else {
        return PASS;
    };
    if socket.protocol != IPPROTO_TCP || (is_local && !socket.is_turned) {
        return PASS;
    }
    let Some(addresses) = addresses(ctx) else {
        // No IP packet has no such header.
        return PASS;
    };
    let asked = if addresses.is_v4 { socket.remote_v4 } else { socket.remote_v6 };
    let source = Endpoint { address: addresses.source, port: socket.local_port };
    if is_local {
        let asked = Endpoint { address: asked, port: socket.remote_port };
        let port = port_of(ctx, &addresses).into();
        let destination = Endpoint { address: addresses.destination, port };
        if guard::comes_to_the_agent(&asked, &destination, &source) {
            return PASS;
        }
        return refuse(ctx, socket.confined_by, DropReason::Diverted, &source, &destination);
    }
    let detour = detour(ctx, &addresses, &asked);
    let departure = Departure {
        interface,
        state: SocketState::from_kernel(socket.state),
        is_confined: socket.is_confined,
        source: addresses.source,
        destination: addresses.destination,
        route: detour.route,
    };
    let finding = departure.finding();
    if matches!(finding, Finding::Pass) {
        return PASS;
    }
    let workload = workload::guarding_packet(ctx);
    let may_be_spared = workload.is_held() && !matches!(finding, Finding::Drop(_));
    if may_be_spared && pods::is_spared(ctx) {
        return PASS;
    }
    let reason = match finding {
        Finding::Drop(reason) => reason,
        Finding::DropFromAny(reason) if guard::is_any(&workload) => reason,
        Finding::DropFromOutbound(reason) if guard::is_outbound(&workload) => reason,
        Finding::AskPolicy if guard::is_outbound(&workload) => {
            let asked = Endpoint { address: asked, port: socket.remote_port };
            let header = Endpoint { address: addresses.destination, port: detour.port.into() };
            let translated = matches!(detour.route, Route::Translated).then_some(&header);
            if policy_allows(&workload, &asked, translated) {
                return PASS;
            }
            DropReason::Destination
        }
        Finding::AskPort if is_guarded(&workload, socket.local_port) => {
            if probes::is_answer(ctx, &workload, socket.local_port) {
                return PASS;
            }
            return refuse_port(ctx, &workload, DropReason::Port, &addresses, &socket);
        }
        _ => return PASS,
    };
    let workload = if workload.is_nobody() { socket.confined_by } else { workload.id };
    let destination = Endpoint { address: addresses.destination, port: socket.remote_port };
    refuse(ctx, workload, reason, &source, &destination)
}

/// The socket of a packet on its way in is the one that it would be delivered to. A listener of a workload gets nothing
/// of the network's on a port that only the agent answers on, whatever it is: the end of a handshake that has left no
/// socket behind (SYN cookies) is as good as its beginning. Only [probes] get through.
pub fn ingress(ctx: &SkBuffContext) -> i32 {
    if packet::interface(ctx) == LOOPBACK {
        return if local_leg::may_pass(ctx) { PASS } else { DROP };
    }
    let Some(socket) = packet::socket(ctx) else {
        return PASS;
    };
    if socket.protocol != IPPROTO_TCP
        || !matches!(SocketState::from_kernel(socket.state), SocketState::Listening)
    {
        return PASS;
    }
    let workload = workload::guarding_packet(ctx);
    if is_guarded(&workload, socket.local_port) {
        if workload.is_held() && pods::is_spared(ctx) {
            return PASS;
        }
        let reason = match probes::arrival(ctx, &workload, socket.local_port) {
            Arrival::Probe => return PASS,
            Arrival::Forged => DropReason::NoProbe,
            Arrival::Other => DropReason::Port,
        };
        let unknown =
            Addresses { source: Address::default(), destination: Address::default(), is_v4: false };
        let addresses = addresses(ctx).unwrap_or(unknown);
        // Told from the workload's end, as on the way out.
        let addresses = Addresses {
            source: addresses.destination,
            destination: addresses.source,
            is_v4: addresses.is_v4,
        };
        return refuse_port(ctx, &workload, reason, &addresses, &socket);
    }
    if workload.is_nobody() && local_leg::stands_for_a_workload(ctx, socket.local_port) {
        count(Counter::GuardDroppedInbound);
        return DROP;
    }
    PASS
}

#[inline(always)]
fn policy_allows(workload: &Workload, asked: &Endpoint, translated: Option<&Endpoint>) -> bool {
    let verdict = |destination: &Endpoint| -> Verdict {
        decide(workload.outbound(), destination, best_rule(workload.id, destination))
    };
    // No rule is about a held pod.
    !workload.is_held() && may_open(verdict(asked), translated.map(verdict))
}

#[inline(always)]
fn is_guarded(workload: &Workload, port: u32) -> bool {
    let key = GuardedKey { workload: workload.id, port };
    guard::is_inbound(workload) && (workload.inbound_every_port() || contains(&GUARDED, &key))
}

#[inline(always)]
fn refuse(
    ctx: &SkBuffContext,
    workload: WorkloadId,
    reason: DropReason,
    source: &Endpoint,
    destination: &Endpoint,
) -> i32 {
    count(Counter::GuardDroppedOutbound);
    match reason {
        DropReason::Confined => count(Counter::GuardDroppedConfined),
        DropReason::LoopbackAddress => count(Counter::GuardDroppedLoopbackAddress),
        DropReason::SourceRouted => count(Counter::GuardDroppedSourceRouted),
        DropReason::Unreadable => count(Counter::GuardDroppedUnreadable),
        DropReason::Diverted => count(Counter::GuardDroppedDiverted),
        DropReason::Destination | DropReason::Port | DropReason::NoProbe => {}
    }
    send(Event {
        kind: EventKind::GuardDroppedOutbound as u32,
        detail: reason as u32,
        workload,
        cookie: ctx::socket_cookie(ctx),
        source: *source,
        destination: *destination,
        ..Event::default()
    });
    DROP
}

#[inline(always)]
fn refuse_port(
    ctx: &SkBuffContext,
    workload: &Workload,
    reason: DropReason,
    addresses: &Addresses,
    socket: &packet::Socket,
) -> i32 {
    count(Counter::GuardDroppedInbound);
    send(Event {
        kind: EventKind::GuardDroppedInbound as u32,
        detail: reason as u32,
        workload: workload.id,
        cookie: ctx::socket_cookie(ctx),
        // The client's port is behind headers that are not followed for it.
        source: Endpoint { address: addresses.destination, port: 0 },
        destination: Endpoint { address: addresses.source, port: socket.local_port },
        ..Event::default()
    });
    DROP
}
