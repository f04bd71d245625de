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

use crate::ctx::{self, PacketSocket};
use crate::maps::{GUARDED, best_rule, contains};
use crate::report::{count, send};
use crate::{local_leg, socket, workload};

const PASS: i32 = 1;
const DROP: i32 = 0;

/// Offsets in the IPv4 header (RFC 791, 3.1).
mod v4 {
    pub const PROTOCOL: usize = 9;
    pub const ADDRESSES: usize = 12;
    /// Of a header without options.
    pub const PAYLOAD: usize = 20;
}

/// Offsets in the IPv6 header (RFC 8200, 3).
mod v6 {
    pub const NEXT_HEADER: usize = 6;
    pub const ADDRESSES: usize = 8;
    pub const HEADERS: usize = 40;
}

/// What both guards want to know first.
struct Addresses {
    source: Address,
    destination: Address,
    is_v4: bool,
}

pub fn egress(ctx: &SkBuffContext) -> i32 {
    let interface = ctx::interface(ctx);
    let is_local = interface == LOOPBACK;
    // Most packets over loopback cost no more than this.
    if is_local && !socket::is_in(ctx, SocketState::Opening) {
        return PASS;
    }
    let Some(socket) = ctx::packet_socket(ctx) else {
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
        let port = if addresses.is_v4 { port_v4(ctx) } else { detour_v6(ctx).port };
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
    let reason = match finding {
        Finding::Drop(reason) => reason,
        Finding::DropFromAny(reason) if guard::is_any(&workload) => reason,
        Finding::DropFromOutbound(reason) if guard::is_outbound(&workload) => reason,
        Finding::AskPolicy if guard::is_outbound(&workload) => {
            let asked = Endpoint { address: asked, port: socket.remote_port };
            let header = Endpoint { address: addresses.destination, port: detour.port };
            let translated = matches!(detour.route, Route::Translated).then_some(&header);
            if policy_allows(&workload, &asked, translated) {
                return PASS;
            }
            DropReason::Destination
        }
        Finding::AskPort if is_guarded(&workload, socket.local_port) => {
            return refuse_port(ctx, &workload, &addresses, &socket);
        }
        _ => return PASS,
    };
    let workload = if workload.is_nobody() { socket.confined_by } else { workload.id };
    let destination = Endpoint { address: addresses.destination, port: socket.remote_port };
    refuse(ctx, workload, reason, &source, &destination)
}

/// The socket of a packet on its way in is the one that it would be delivered to. A listener of a workload gets nothing
/// of the network's on a port that only the agent answers on, whatever it is: the end of a handshake that has left no
/// socket behind (SYN cookies) is as good as its beginning.
pub fn ingress(ctx: &SkBuffContext) -> i32 {
    if ctx::interface(ctx) == LOOPBACK {
        return if local_leg::may_pass(ctx) { PASS } else { DROP };
    }
    let Some(socket) = ctx::packet_socket(ctx) else {
        return PASS;
    };
    if socket.protocol != IPPROTO_TCP
        || !matches!(SocketState::from_kernel(socket.state), SocketState::Listening)
    {
        return PASS;
    }
    let workload = workload::guarding_packet(ctx);
    if is_guarded(&workload, socket.local_port) {
        let unknown =
            Addresses { source: Address::default(), destination: Address::default(), is_v4: false };
        let addresses = addresses(ctx).unwrap_or(unknown);
        // Told from the workload's end, as on the way out.
        let addresses = Addresses {
            source: addresses.destination,
            destination: addresses.source,
            is_v4: addresses.is_v4,
        };
        return refuse_port(ctx, &workload, &addresses, &socket);
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
    may_open(verdict(asked), translated.map(verdict))
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
        DropReason::Destination | DropReason::Port => {}
    }
    send(Event {
        kind: EventKind::GuardDroppedOutbound as u32,
        detail: reason as u32,
        workload,
        cookie: ctx::packet_socket_cookie(ctx),
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
    addresses: &Addresses,
    socket: &PacketSocket,
) -> i32 {
    count(Counter::GuardDroppedInbound);
    send(Event {
        kind: EventKind::GuardDroppedInbound as u32,
        detail: DropReason::Port as u32,
        workload: workload.id,
        cookie: ctx::packet_socket_cookie(ctx),
        // The client's port is behind headers that are not followed for it.
        source: Endpoint { address: addresses.destination, port: 0 },
        destination: Endpoint { address: addresses.source, port: socket.local_port },
        ..Event::default()
    });
    DROP
}

// ---- headers -------------------------------------------------------------------------------------------

/// A cgroup's hooks see the packet from its network header on, on the way out before any fragmentation.
#[inline(always)]
fn addresses(ctx: &SkBuffContext) -> Option<Addresses> {
    if ctx::is_v4_packet(ctx) {
        let [source, destination] = ctx.load::<[u32; 2]>(v4::ADDRESSES).ok()?;
        let [source, destination] = [Address::from_v4(source), Address::from_v4(destination)];
        return Some(Addresses { source, destination, is_v4: true });
    }
    let [a, b, c, d, e, f, g, h] = ctx.load::<[u32; 8]>(v6::ADDRESSES).ok()?;
    Some(Addresses {
        source: Address::from_v6([a, b, c, d]),
        destination: Address::from_v6([e, f, g, h]),
        is_v4: false,
    })
}

/// How a packet comes to have its destination, and which port of it is meant if it was translated: zero otherwise, and
/// not an option, whose absent part older kernels do not let programs copy.
#[repr(C)]
struct Detour {
    route: Route,
    port: u32,
}

impl From<Route> for Detour {
    #[inline(always)]
    fn from(route: Route) -> Self {
        Self { route, port: 0 }
    }
}

/// A packet whose header names the end of its socket's connection is for nobody else, whatever headers follow: the kernel
/// ends every route that an application asks for there.
#[inline(always)]
fn detour(ctx: &SkBuffContext, addresses: &Addresses, asked: &Address) -> Detour {
    if addresses.destination == *asked {
        Route::Direct.into()
    } else if addresses.is_v4 {
        detour_v4(ctx)
    } else {
        detour_v6(ctx)
    }
}

/// RFC 791, 3.1. A source route is an option, and options are not followed: one is as good as unreadable.
#[inline(never)]
fn detour_v4(ctx: &SkBuffContext) -> Detour {
    const WITHOUT_OPTIONS: u8 = 0x45;

    let (Ok(first), Ok(protocol)) = (ctx.load::<u8>(0), ctx.load::<u8>(v4::PROTOCOL)) else {
        return Route::Unreadable.into();
    };
    if first != WITHOUT_OPTIONS {
        Route::Unreadable.into()
    } else if u32::from(protocol) == IPPROTO_TCP {
        translated(ctx, v4::PAYLOAD)
    } else {
        Route::Encapsulated.into()
    }
}

/// The destination port of a TCP packet, behind whatever options there are (RFC 791, 3.1; RFC 9293, 3.1); zero if there
/// is none.
#[inline(always)]
fn port_v4(ctx: &SkBuffContext) -> u32 {
    let Ok(first) = ctx.load::<u8>(0) else {
        return 0;
    };
    translated(ctx, usize::from(first & 0x0f) * 4).port
}

/// RFC 8200, 4
#[inline(never)]
fn detour_v6(ctx: &SkBuffContext) -> Detour {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;
    const MAX_HEADERS: usize = 4;

    let Ok(mut next) = ctx.load::<u8>(v6::NEXT_HEADER) else {
        return Route::Unreadable.into();
    };
    let mut at = v6::HEADERS;
    for _ in 0..MAX_HEADERS {
        if u32::from(next) == IPPROTO_TCP {
            return translated(ctx, at);
        }
        let is_extension = next == HOP_BY_HOP
            || next == ROUTING
            || next == FRAGMENT
            || next == AUTHENTICATION
            || next == DESTINATION_OPTIONS;
        if !is_extension {
            return Route::Encapsulated.into();
        }
        let Ok([following, length, third, fourth]) = ctx.load::<[u8; 4]>(at) else {
            return Route::Unreadable.into();
        };
        if next == ROUTING && fourth != 0 {
            // Segments left.
            return Route::Sourced.into();
        }
        if next == FRAGMENT && (third != 0 || fourth != 0) {
            // Not the whole of a packet.
            return Route::Unreadable.into();
        }
        at += match next {
            FRAGMENT => 8,
            AUTHENTICATION => (length as usize + 2) * 4,
            _ => (length as usize + 1) * 8,
        };
        next = following;
    }
    Route::Unreadable.into()
}

/// With the port from the TCP header at `tcp` (RFC 9293, 3.1).
#[inline(always)]
fn translated(ctx: &SkBuffContext, tcp: usize) -> Detour {
    match ctx.load::<u16>(tcp + 2) {
        Ok(port) => Detour { route: Route::Translated, port: u32::from(u16::from_be(port)) },
        Err(_) => Route::Unreadable.into(),
    }
}
