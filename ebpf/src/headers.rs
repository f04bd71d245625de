//! What the guards read of a packet's headers. A cgroup's hooks see the packet from its network header on, on the way out
//! before any fragmentation.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::SkBuffContext;
use sheath_common::guard::{Detour, Route};
use sheath_common::net::{Address, Endpoint, IPPROTO_TCP};
use sheath_common::probe::Numbers;

use crate::ctx::packet;

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

/// The addresses in a packet's IP header.
pub struct Addresses {
    pub source: Address,
    pub destination: Address,
    pub is_v4: bool,
}

/// None if it is no IP packet.
#[inline(always)]
pub fn addresses(ctx: &SkBuffContext) -> Option<Addresses> {
    if packet::is_v4(ctx) {
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

/// A packet whose header names the end of its socket's connection is for nobody else, whatever headers follow: the kernel
/// ends every route that an application asks for there.
#[inline(always)]
pub fn detour(ctx: &SkBuffContext, addresses: &Addresses, asked: &Address) -> Detour {
    if addresses.destination == *asked {
        Route::Direct.into()
    } else if addresses.is_v4 {
        Detour::from_bits(detour_v4(ctx.skb.skb))
    } else {
        Detour::from_bits(detour_v6(ctx.skb.skb))
    }
}

/// The destination port in a packet's TCP header, zero if there is none.
#[inline(always)]
pub fn port_of(ctx: &SkBuffContext, addresses: &Addresses) -> u16 {
    if addresses.is_v4 { port_v4(ctx) } else { Detour::from_bits(detour_v6(ctx.skb.skb)).port }
}

/// [`follow_v4`] as a global function (`main.rs`).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn detour_v4(skb: *mut __sk_buff) -> u32 {
    follow_v4(&SkBuffContext::new(skb)).to_bits()
}

/// RFC 791, 3.1. A source route is an option, and options are not followed: one is as good as unreadable.
#[inline(always)]
fn follow_v4(ctx: &SkBuffContext) -> Detour {
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

/// Behind whatever options there are (RFC 791, 3.1; RFC 9293, 3.1).
#[inline(always)]
fn port_v4(ctx: &SkBuffContext) -> u16 {
    let Ok(first) = ctx.load::<u8>(0) else {
        return 0;
    };
    translated(ctx, usize::from(first & 0x0f) * 4).port
}

/// [`follow_v6`] as a global function (`main.rs`).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn detour_v6(skb: *mut __sk_buff) -> u32 {
    follow_v6(&SkBuffContext::new(skb)).to_bits()
}

/// RFC 8200, 4
#[inline(always)]
fn follow_v6(ctx: &SkBuffContext) -> Detour {
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
        Ok(port) => Detour { route: Route::Translated, port: u16::from_be(port) },
        Err(_) => Route::Unreadable.into(),
    }
}

/// A TCP segment directly behind an IP header without options.
pub struct Segment {
    pub source: Endpoint,
    pub destination: Endpoint,
    pub numbers: Numbers,
}

/// None of a packet with other headers in between.
#[inline(always)]
pub fn segment(ctx: &SkBuffContext) -> Option<Segment> {
    const TCP: u8 = IPPROTO_TCP as u8;
    const WITHOUT_OPTIONS: u8 = 0x45;

    let addresses = addresses(ctx)?;
    let (next, tcp) = match addresses.is_v4 {
        true if ctx.load::<u8>(0).ok()? != WITHOUT_OPTIONS => return None,
        true => (v4::PROTOCOL, v4::PAYLOAD),
        false => (v6::NEXT_HEADER, v6::HEADERS),
    };
    if ctx.load::<u8>(next).ok()? != TCP {
        return None;
    }
    // RFC 9293, 3.1
    let [source, destination] = ctx.load::<[u16; 2]>(tcp).ok()?;
    let [sequence, acknowledged] = ctx.load::<[u32; 2]>(tcp + 4).ok()?;
    let flags = ctx.load::<u8>(tcp + 13).ok()?;
    Some(Segment {
        source: Endpoint { address: addresses.source, port: u16::from_be(source).into() },
        destination: Endpoint {
            address: addresses.destination,
            port: u16::from_be(destination).into(),
        },
        numbers: Numbers {
            sequence: u32::from_be(sequence),
            acknowledged: u32::from_be(acknowledged),
            is_syn: flags & 0x02 != 0,
            is_ack: flags & 0x10 != 0,
        },
    })
}
