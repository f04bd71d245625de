//! Over loopback, the agent's connection to a local server goes to the workload and to nobody else, and an application's
//! that was turned to the agent goes to the agent and to nobody else.
//!
//! Whoever listens on a port is not its workload for that. What tells is the cgroup in which the listening socket was
//! made, and that is seen where a packet comes to a socket that listens. The agent notes with its own socket whom it
//! is for ([`LocalLeg`]); the socket is found here by the packet's addresses, and whom the packet has reached is noted
//! with it. Only what is seen to reach the workload goes on, and the agent sends nothing before it has read that: where
//! no program of ours runs for the listening socket, nothing is noted.
//!
//! That a connection was turned to the agent is noted with the application's socket, and found in the same way; the agent's
//! listeners are known by a note of the agent's. Whatever rule leads the connection to another listener (TPROXY, another
//! `sk_lookup` program), it does not get there. Translated on its way out, it is the egress guard that sees it.
//!
//! Not only the SYN is looked at: an acknowledgement that comes to a socket that listens makes a connection as well,
//! from a SYN cookie for instance.

use aya_ebpf::programs::SkBuffContext;
use sheath_common::counters::Counter;
use sheath_common::flow::{ActivatedKey, LocalLeg, Reached};
use sheath_common::guard::SocketState;

use crate::maps::{ACTIVATED, contains};
use crate::report::count;
use crate::{socket, workload};

/// Looks at a packet on its way in over loopback. False if it must not go on.
#[inline(always)]
pub fn may_pass(ctx: &SkBuffContext) -> bool {
    if !socket::is_in(ctx, SocketState::Listening) || socket::is_agents_listener(ctx) {
        return true;
    }
    let Some(tuple) = socket::reverse_tuple(ctx) else {
        return true;
    };
    let noted = socket::with_sender(ctx, tuple, |leg, was_turned| match leg {
        Some(leg) => note(ctx, leg),
        None if was_turned => {
            count(Counter::GuardDroppedOutbound);
            count(Counter::GuardDroppedDiverted);
            false
        }
        None => true,
    });
    noted.unwrap_or(true)
}

#[inline(always)]
fn note(ctx: &SkBuffContext, leg: &mut LocalLeg) -> bool {
    let receiver = workload::of_packet(ctx);
    let is_theirs = (!receiver.is_nobody() && receiver.id == leg.workload)
        || (leg.activator != 0 && socket::receiver_cgroup(ctx) == leg.activator);
    if !is_theirs {
        leg.reached = Reached::SomebodyElse as u32;
        count(Counter::LocalLegRefused);
    } else if leg.reached == Reached::Nobody as u32 {
        leg.reached = Reached::TheWorkload as u32;
    }
    is_theirs
}

/// True if the socket that a packet has come to on this port stands for a workload's, though it was made by a service
/// manager: what comes by the network must not reach it either.
#[inline(always)]
pub fn stands_for_a_workload(ctx: &SkBuffContext, port: u32) -> bool {
    let key = ActivatedKey { cgroup: socket::receiver_cgroup(ctx), port, _reserved: 0 };
    contains(&ACTIVATED, &key)
}
