//! The sockets at both ends of a packet on loopback, for programs that run where it is received.

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile};

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{
    bpf_sk_lookup_tcp, bpf_sk_release, bpf_sk_storage_get, bpf_skb_cgroup_id,
};
use aya_ebpf::programs::SkBuffContext;
use sheath_common::flow::LocalLeg;
use sheath_common::guard::SocketState;
use sheath_common::net::IPPROTO_TCP;

use crate::ctx::connected;
use crate::ctx::packet::with_socket;
use crate::maps::{LOCAL_LEGS, OWN_LISTENERS};

/// `BPF_F_CURRENT_NETNS` (UAPI), as the 64-bit argument that the helper takes.
const CURRENT_NETNS: u64 = u64::MAX;

/// Addresses and ports of a connection in network byte order: `struct bpf_sock_tuple`, whose two forms have different
/// lengths. All of it has a value: the verifier does not let programs read what has none.
pub struct Tuple {
    words: [u32; 9],
    len: u32,
}

/// Words of either form of a tuple.
const V4_WORDS: usize = 3;
const V6_WORDS: usize = 9;

/// True if the packet's socket is in this state: the one that sends it on its way out, the one that receives it on its
/// way in.
#[inline(always)]
pub fn is_in(ctx: &SkBuffContext, state: SocketState) -> bool {
    with_socket(ctx, false, |sk| {
        // SAFETY: not null, and a whole socket.
        SocketState::from_kernel(unsafe { read_volatile(&raw const (*sk).state) }) == state
    })
}

/// True if the packet has come to one of the agent's listeners.
#[inline(always)]
pub fn is_agents_listener(ctx: &SkBuffContext) -> bool {
    let listeners: *mut c_void = (&raw const OWN_LISTENERS).cast_mut().cast();
    with_socket(ctx, false, |sk| {
        // SAFETY: the helper takes a socket that is not null; only the presence of the value matters.
        !unsafe { bpf_sk_storage_get(listeners, sk.cast(), null_mut(), 0) }.is_null()
    })
}

/// Id of the cgroup in which the receiving socket was made.
#[inline(always)]
pub fn receiver_cgroup(ctx: &SkBuffContext) -> u64 {
    // SAFETY: the helper takes the program's own context.
    unsafe { bpf_skb_cgroup_id(ctx.skb.skb) }
}

/// What a packet in answer to this one would bear. The agent's own packets have no extension headers: others are not
/// read.
#[inline(always)]
pub fn reverse_tuple(ctx: &SkBuffContext) -> Option<Tuple> {
    const TCP: u8 = IPPROTO_TCP as u8;

    let first = ctx.load::<u8>(0).ok()?;
    let mut words = [0_u32; 9];
    if first >> 4 == 4 && ctx.load::<u8>(9) == Ok(TCP) {
        words[0] = ctx.load(16).ok()?;
        words[1] = ctx.load(12).ok()?;
        // Both ports, in the other order.
        words[2] = ctx.load::<u32>(((first & 0x0f) as usize) * 4).ok()?.rotate_left(16);
        return Some(Tuple { words, len: (V4_WORDS * 4) as u32 });
    }
    if first >> 4 == 6 && ctx.load::<u8>(6) == Ok(TCP) {
        let [a, b, c, d] = ctx.load::<[u32; 4]>(24).ok()?;
        let [e, f, g, h] = ctx.load::<[u32; 4]>(8).ok()?;
        let ports = ctx.load::<u32>(40).ok()?.rotate_left(16);
        words = [a, b, c, d, e, f, g, h, ports];
        return Some(Tuple { words, len: (V6_WORDS * 4) as u32 });
    }
    None
}

/// Calls `note` with what is known of the sender: what the agent has noted with its own socket of this connection, and
/// whether a workload's socket was turned to the agent. `None` if the sender is not found.
#[inline(always)]
pub fn with_sender(
    ctx: &SkBuffContext,
    tuple: Tuple,
    note: impl FnOnce(Option<&mut LocalLeg>, bool) -> bool,
) -> Option<bool> {
    let legs: *mut c_void = (&raw const LOCAL_LEGS).cast_mut().cast();
    let at = (&raw const tuple.words).cast_mut().cast();
    // SAFETY: the tuple lives on the stack and is as long as said; the socket is checked for null and released on the
    // way out; the storage is checked for null, and is memory that lives on while the program runs.
    unsafe {
        let sk = bpf_sk_lookup_tcp(ctx.as_ptr().cast(), at, tuple.len, CURRENT_NETNS, 0);
        if sk.is_null() {
            return None;
        }
        let leg = bpf_sk_storage_get(legs, sk.cast(), null_mut(), 0).cast::<LocalLeg>().as_mut();
        let was_turned = leg.is_none()
            && connected::of_socket(sk.cast()).is_some_and(|connected| connected.is_turned != 0);
        let noted = note(leg, was_turned);
        bpf_sk_release(sk.cast());
        Some(noted)
    }
}
