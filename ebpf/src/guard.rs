//! The second line: drops what capture should have caught, without relying on it.
//!
//! A TCP connection begins with a SYN, so that is all the guard needs to look at. On its way out, a workload's
//! own SYN to a protected (or refused) destination is dropped. On its way in, a SYN that would reach a
//! workload's own socket on a port that only the agent may answer on is dropped; so is a SYN-ACK from there,
//! but that alone would not do, because those of SYN cookies belong to no socket and pass unseen. The agent's
//! sockets belong to the agent's cgroup, which is no workload. Connections older than the guard have no SYN
//! left to send: they live on. What goes over the loopback interface never leaves the namespace.

use aya_ebpf::programs::SkBuffContext;
use sheath_common::counters::Counter;
use sheath_common::event::{Event, EventKind};
use sheath_common::flow::GuardedKey;
use sheath_common::net::{Address, Endpoint, IPPROTO_TCP};
use sheath_common::verdict::{Verdict, decide};
use sheath_common::workload::{InboundMode, Workload};

use crate::maps::{GUARDED, candidates};
use crate::report::{count, send};
use crate::{ctx, local_leg, workload};

const PASS: i32 = 1;
const DROP: i32 = 0;

const LOOPBACK: u32 = 1;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A TCP segment that opens a connection.
struct Opening {
    source: Endpoint,
    destination: Endpoint,
    /// A SYN-ACK, not a SYN.
    answers: bool,
}

enum Packet {
    Opening(Opening),
    Other,
    /// IPv6 extension headers beyond what is followed here.
    Unreadable,
}

pub fn egress(ctx: &SkBuffContext) -> i32 {
    if ctx::interface(ctx) == LOOPBACK {
        return PASS;
    }
    let opening = match parse(ctx) {
        Packet::Other => return PASS,
        Packet::Opening(opening) => opening,
        Packet::Unreadable => return unreadable(ctx),
    };
    let Some(workload) = workload::of_packet(ctx) else {
        return PASS;
    };
    if opening.answers {
        guard_port(&workload, &opening, opening.source.port)
    } else {
        call(&workload, &opening)
    }
}

/// The socket of a packet on its way in is the one that it would be delivered to.
pub fn ingress(ctx: &SkBuffContext) -> i32 {
    if ctx::interface(ctx) == LOOPBACK {
        return if local_leg::may_pass(ctx) { PASS } else { DROP };
    }
    let Packet::Opening(opening) = parse(ctx) else {
        return PASS;
    };
    if opening.answers {
        return PASS;
    }
    match workload::of_packet(ctx) {
        Some(workload) => guard_port(&workload, &opening, opening.destination.port),
        None if local_leg::stands_for_a_workload(ctx, opening.destination.port) => {
            count(Counter::GuardDroppedInbound);
            DROP
        }
        None => PASS,
    }
}

#[inline(always)]
fn call(workload: &Workload, opening: &Opening) -> i32 {
    let rules = candidates(workload.id, &opening.destination);
    if matches!(decide(workload.outbound(), &opening.destination, &rules), Verdict::Bypass) {
        return PASS;
    }
    count(Counter::GuardDroppedOutbound);
    tell(EventKind::GuardDroppedOutbound, workload, opening);
    DROP
}

/// Drops what would make a connection on a port of the workload that only the agent may answer on.
#[inline(always)]
fn guard_port(workload: &Workload, opening: &Opening, port: u32) -> i32 {
    if matches!(workload.inbound(), InboundMode::Disabled) {
        return PASS;
    }
    let key = GuardedKey { workload: workload.id, port };
    // SAFETY: only the presence of the entry matters.
    if !workload.inbound_every_port() && unsafe { GUARDED.get(&key) }.is_none() {
        return PASS;
    }
    count(Counter::GuardDroppedInbound);
    tell(EventKind::GuardDroppedInbound, workload, opening);
    DROP
}

/// Nothing that a workload sends may be hidden behind headers the guard cannot follow.
#[inline(always)]
fn unreadable(ctx: &SkBuffContext) -> i32 {
    if workload::of_packet(ctx).is_none() {
        return PASS;
    }
    count(Counter::GuardDroppedOutbound);
    DROP
}

#[inline(always)]
fn tell(kind: EventKind, workload: &Workload, opening: &Opening) {
    send(Event {
        kind: kind as u32,
        workload: workload.id,
        source: opening.source,
        destination: opening.destination,
        ..Event::default()
    });
}

// ---- headers -------------------------------------------------------------------------------------------

/// A cgroup's hooks see the packet from its network header on, on the way out before any fragmentation.
#[inline(always)]
fn parse(ctx: &SkBuffContext) -> Packet {
    match ctx.load::<u8>(0) {
        Ok(first) if first >> 4 == 4 => parse_v4(ctx, first),
        Ok(first) if first >> 4 == 6 => parse_v6(ctx),
        _ => Packet::Other,
    }
}

/// RFC 791, 3.1
#[inline(always)]
fn parse_v4(ctx: &SkBuffContext, first: u8) -> Packet {
    if ctx.load::<u8>(9) != Ok(IPPROTO_TCP as u8) {
        return Packet::Other;
    }
    let tcp = ((first & 0x0f) as usize) * 4;
    let Some(flags) = opening_flags(ctx, tcp) else {
        return Packet::Other;
    };
    let (Ok(source), Ok(destination)) = (ctx.load::<u32>(12), ctx.load::<u32>(16)) else {
        return Packet::Other;
    };
    opening(ctx, tcp, flags, Address::from_v4(source), Address::from_v4(destination))
}

/// RFC 8200, 3 and 4
#[inline(always)]
fn parse_v6(ctx: &SkBuffContext) -> Packet {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION_OPTIONS: u8 = 60;
    const MAX_HEADERS: usize = 6;

    let Ok(mut next) = ctx.load::<u8>(6) else {
        return Packet::Other;
    };
    let mut at = 40;
    for _ in 0..MAX_HEADERS {
        if next == IPPROTO_TCP as u8 {
            let Some(flags) = opening_flags(ctx, at) else {
                return Packet::Other;
            };
            let (Ok(source), Ok(destination)) = (ctx.load::<[u32; 4]>(8), ctx.load::<[u32; 4]>(24))
            else {
                return Packet::Other;
            };
            return opening(
                ctx,
                at,
                flags,
                Address::from_v6(source),
                Address::from_v6(destination),
            );
        }
        if next != HOP_BY_HOP && next != ROUTING && next != DESTINATION_OPTIONS {
            return Packet::Other;
        }
        let (Ok(following), Ok(length)) = (ctx.load::<u8>(at), ctx.load::<u8>(at + 1)) else {
            return Packet::Unreadable;
        };
        next = following;
        at += (length as usize + 1) * 8;
    }
    Packet::Unreadable
}

/// The flags byte of the TCP header at `tcp`, if it opens a connection (RFC 9293, 3.1).
#[inline(always)]
fn opening_flags(ctx: &SkBuffContext, tcp: usize) -> Option<u8> {
    match ctx.load::<u8>(tcp + 13) {
        Ok(flags) if flags & SYN != 0 => Some(flags),
        _ => None,
    }
}

#[inline(always)]
fn opening(
    ctx: &SkBuffContext,
    tcp: usize,
    flags: u8,
    source: Address,
    destination: Address,
) -> Packet {
    let (Ok(source_port), Ok(destination_port)) = (ctx.load::<u16>(tcp), ctx.load::<u16>(tcp + 2))
    else {
        return Packet::Other;
    };
    Packet::Opening(Opening {
        source: Endpoint { address: source, port: u32::from(u16::from_be(source_port)) },
        destination: Endpoint {
            address: destination,
            port: u32::from(u16::from_be(destination_port)),
        },
        answers: flags & ACK != 0,
    })
}
