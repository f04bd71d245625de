//! Which socket a SYN belongs to, asked before the kernel looks for a listener of its own.
//!
//! The program is loaded once for each namespace, with the namespace's cookie filled in.

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::programs::SkLookupContext;
use sheath_common::counters::Counter;
use sheath_common::flow::{
    self, FlowKey, LegKey, ListenerKey, ListenerKind, LocalKey, STEER, SilentKey, SteeredKey,
};
use sheath_common::guard::LOOPBACK;
use sheath_common::net::{AF_INET6, Address, Endpoint, IPPROTO_TCP};

use crate::ctx::sk_lookup::{self, Lookup};
use crate::maps::{FLOWS, LISTENERS, LOCALS, SILENT, STEERED, WIRES, contains, copied};
use crate::probes;
use crate::report::count;

pub fn steer(ctx: &SkLookupContext) -> u32 {
    let lookup = sk_lookup::lookup(ctx);
    if lookup.protocol != IPPROTO_TCP {
        return SK_PASS;
    }
    let netns = sk_lookup::netns();
    if let Some(place) = lookup.local.agents_place() {
        return match is_expected(&lookup, netns, place) {
            true => hand_over(ctx, &lookup, netns, ListenerKind::Outbound),
            false => refuse(),
        };
    }
    if !is_steered(&lookup, netns) {
        return SK_PASS;
    }
    // Local traffic is the application's own affair, but for the agent calling a workload of its own node.
    if is_local(&lookup, netns) && !is_wire_leg(&lookup, netns) {
        return SK_PASS;
    }
    // The guard looks at it once more, by what is not seen here.
    if probes::leads_to_the_application(&lookup, netns) {
        return SK_PASS;
    }
    // Where nothing listens, the kernel refuses as it does without the agent. Should something listen after all, the
    // guard knows whose it is.
    if is_silent(netns, lookup.local.port) {
        return SK_PASS;
    }
    hand_over(ctx, &lookup, netns, ListenerKind::Inbound)
}

/// Gives the connection to the agent's listener. Without one it is refused, never left to whoever else may
/// listen there: `SK_DROP` makes the kernel answer with a reset.
#[inline(always)]
fn hand_over(ctx: &SkLookupContext, lookup: &Lookup, netns: u64, kind: ListenerKind) -> u32 {
    let key = ListenerKey { netns, kind: kind as u32, family: lookup.family };
    if LISTENERS.redirect_sk_lookup(ctx, &key, 0).is_ok() {
        count(Counter::LookupSteered);
        SK_PASS
    } else {
        refuse()
    }
}

#[inline(always)]
fn refuse() -> u32 {
    count(Counter::LookupRefused);
    SK_DROP
}

/// True for a connection that was turned to this agent. Others come to its places as well: whoever dials them, and what
/// was turned to another agent in the same namespace, whose program finds it there.
#[inline(always)]
fn is_expected(lookup: &Lookup, netns: u64, place: u32) -> bool {
    let Endpoint { address, port } = lookup.remote;
    let key = FlowKey { netns, address, port, place };
    contains(&FLOWS, &key)
}

/// Traffic that has not left the namespace. What goes to an address of the namespace itself is delivered over
/// loopback but bears the index of the interface that has the address, so its source has to tell: another address
/// of this namespace.
///
/// A source can be forged, and Linux drops packets from the network with a local one only where they are IPv4 and
/// `accept_local` is off. Nothing rests on that. What is left alone here goes to a socket of this namespace, and
/// there the guard looks at the interface: a local source that came by another than loopback is dropped.
#[inline(always)]
fn is_local(lookup: &Lookup, netns: u64) -> bool {
    lookup.ingress_ifindex == LOOPBACK
        || lookup.remote.address == lookup.local.address
        || lookup.remote.address.is_loopback()
        || is_own_address(netns, &lookup.remote.address)
}

/// True for an address of the namespace itself, as far as the agent has told.
#[inline(always)]
pub fn is_own_address(netns: u64, address: &Address) -> bool {
    let key = LocalKey { netns, address: *address };
    contains(&LOCALS, &key)
}

#[inline(always)]
fn is_wire_leg(lookup: &Lookup, netns: u64) -> bool {
    let key =
        LegKey { netns, address: lookup.remote.address, port: lookup.remote.port, _reserved: 0 };
    contains(&WIRES, &key)
}

/// The entry that says most decides: the address and port, the port, everything.
#[inline(always)]
fn is_steered(lookup: &Lookup, netns: u64) -> bool {
    let any =
        if lookup.family == AF_INET6 { Address::UNSPECIFIED_V6 } else { Address::UNSPECIFIED_V4 };
    let (address, port) = (lookup.local.address, lookup.local.port);
    let said = steering(netns, &address, port)
        .or_else(|| steering(netns, &any, port))
        .or_else(|| steering(netns, &Address::UNSPECIFIED_V6, 0));
    said == Some(STEER)
}

#[inline(always)]
fn steering(netns: u64, address: &Address, port: u32) -> Option<u32> {
    let key = SteeredKey { netns, address: *address, port, _reserved: 0 };
    copied(&STEERED, &key)
}

#[inline(always)]
fn is_silent(netns: u64, port: u32) -> bool {
    let key = SilentKey { netns, port, _reserved: 0 };
    copied(&SILENT, &key) == Some(flow::SILENT)
}
