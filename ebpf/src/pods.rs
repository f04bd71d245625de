//! Pods of a kubelet: which of them a new cgroup is, and what is left alone although they are held.
//!
//! The path of a pod's cgroup names the pod (`common/src/pod_cgroups.rs`), and `PODS` says what was decided about it, which is
//! usually there before the cgroup is. A pod that nobody has decided about is held: [`Workload::HELD`]. The host's own network
//! namespace is spared, as what makes the node work runs there, Sheath included.

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile};

use aya_ebpf::bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_sk_storage_get};
use aya_ebpf::programs::{SkBuffContext, SockAddrContext, SockOpsContext};
use sheath_common::pod_cgroups::{Comparison, MAX_STEPS, PodRules, rules_of};
use sheath_common::workload::Workload;

use crate::ctx::connected;
use crate::ctx::packet::with_socket;
use crate::maps::{HOST_SOCKETS, POD_GENERATION, POD_RULES, SCRATCH, Scratch, pod};
use crate::select::Selected;

/// What a `bpf_loop` callback returns.
const NEXT: i64 = 0;
const STOP: i64 = 1;

/// Looks which pod the path that has been [read](crate::select::read) is that of. A pod that is left alone is nobody.
#[inline(always)]
pub fn by_path() -> Selected {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return Selected::Nothing;
    };
    // SAFETY: the slot belongs to this CPU, and the tracepoint is not entered twice on it.
    unsafe {
        // Twice: changing the rules takes longer than comparing one path.
        if !compare(scratch) && !compare(scratch) {
            return Selected::CannotTell;
        }
        if (*scratch).pod.is_above_pods() {
            return Selected::This(Workload::ABOVE_PODS);
        }
        let Some(reader) = (*scratch).pod.pod() else {
            return Selected::Nothing;
        };
        if let Some(decision) = pod(reader.uid()) {
            return Selected::This(*decision);
        }
        match POD_RULES.get(rules_of((*scratch).pod_generation)) {
            Some(rules) if rules.hold(reader.is_hash()) => Selected::This(Workload::HELD),
            _ => Selected::This(Workload::NOBODY),
        }
    }
}

/// False if the rules were changed meanwhile.
///
/// # Safety
/// `scratch` must be this CPU's.
#[inline(always)]
unsafe fn compare(scratch: *mut Scratch) -> bool {
    let Some(generation) = POD_GENERATION.get_ptr(0) else {
        return false;
    };
    // SAFETY: as the caller says. The generation's entry lives as long as the map. The callback has the shape that the
    // helper wants, and needs no context.
    unsafe {
        (*scratch).pod_generation = read_volatile(generation);
        (*scratch).pod = Comparison::default();
        let rules = POD_RULES.get(rules_of((*scratch).pod_generation));
        if rules.is_some_and(|rules| rules.paths.is_some()) {
            bpf_loop(MAX_STEPS, compare_character as *mut c_void, null_mut(), 0);
        }
        (*scratch).pod_generation == read_volatile(generation)
    }
}

/// Advances the comparison by one character.
unsafe extern "C" fn compare_character(_: u64, _: *mut c_void) -> i64 {
    // SAFETY: the slot is this CPU's, and nobody else uses it until this returns.
    let Some(scratch) = SCRATCH.get_ptr_mut(0).map(|slot| unsafe { &mut *slot }) else {
        return STOP;
    };
    let Some(rules) = POD_RULES.get(rules_of(scratch.pod_generation)) else {
        return STOP;
    };
    let Scratch { pod, path, path_len, .. } = scratch;
    if pod.step(&rules.paths, path, *path_len) { NEXT } else { STOP }
}

/// The rules in force. Whoever reads one number of them needs no other, and that is whole.
#[inline(always)]
fn rules() -> Option<&'static PodRules> {
    POD_RULES.get(rules_of(*POD_GENERATION.get(0)?))
}

/// True if what a held pod does in this network namespace is left alone.
#[inline(always)]
pub fn spare(netns: u64) -> bool {
    rules().is_some_and(|rules| rules.spare(netns))
}

/// Cookie of the host's network namespace; zero if it is not known.
#[inline(always)]
pub fn host_netns() -> u64 {
    rules().map_or(0, PodRules::host_netns)
}

/// True for the host's network namespace.
#[inline(always)]
pub fn is_hosts(netns: u64) -> bool {
    netns != 0 && host_netns() == netns
}

/// Notes with the socket of a `connect()` that it is of the host's network namespace: the guard cannot see that.
#[inline(always)]
pub fn note_connecting(ctx: &SockAddrContext) {
    // SAFETY: the socket of a sock_addr context is never null.
    unsafe { note((*ctx.sock_addr).__bindgen_anon_1.sk) };
}

/// Notes with a socket that begins to listen whether it is of the host's network namespace: the guard cannot see that.
#[inline(always)]
pub fn note_listening(ctx: &SockOpsContext, netns: u64) {
    if !spare(netns) {
        return;
    }
    // SAFETY: the socket is checked for null.
    unsafe {
        let sk = (*ctx.ops).__bindgen_anon_2.sk;
        if !sk.is_null() {
            note(sk);
        }
    }
}

/// Without memory for the note the socket is treated like one of a namespace of the pod's own.
///
/// # Safety
/// `sk` is a socket that the verifier knows as such, and not null.
#[inline(always)]
unsafe fn note(sk: *mut bpf_sock) {
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as the caller says.
    unsafe { bpf_sk_storage_get(host_sockets(), sk.cast(), null_mut(), flags) };
}

/// True if the packet's socket is one that a held pod may have: it is of the host's network namespace.
#[inline(always)]
pub fn is_spared(ctx: &SkBuffContext) -> bool {
    socket_is_spared(ctx.skb.skb) != 0
}

/// [`is_spared`] as a global function (`main.rs`).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn socket_is_spared(skb: *mut __sk_buff) -> u32 {
    is_noted(&SkBuffContext::new(skb)).into()
}

#[inline(always)]
fn is_noted(ctx: &SkBuffContext) -> bool {
    if !rules().is_some_and(PodRules::spare_host) {
        return false;
    }
    with_socket(ctx, false, |sk| {
        // SAFETY: the helpers take a socket that is not null; only the presence of the value matters.
        unsafe {
            if !bpf_sk_storage_get(host_sockets(), sk.cast(), null_mut(), 0).is_null() {
                return true;
            }
            // What an MPTCP subflow sends was connected by way of the socket above.
            let mptcp = connected::mptcp_socket_of(sk.cast());
            !mptcp.is_null() && !bpf_sk_storage_get(host_sockets(), mptcp, null_mut(), 0).is_null()
        }
    })
}

#[inline(always)]
fn host_sockets() -> *mut c_void {
    (&raw const HOST_SOCKETS).cast_mut().cast()
}
