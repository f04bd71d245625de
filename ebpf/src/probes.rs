//! The kubelet's own connections to pods, which come in the clear (`common/src/probe.rs`).
//!
//! Its cgroup is in `PROBERS`: the agent puts it there, and `cgroup_created` does when a service manager makes it anew. What happens to
//! a connection from there on:
//!
//! 1. `connect()` marks the socket ([`mark`]).
//! 2. Before the SYN leaves, both ends and the initial number are recorded ([`record`]), until the socket closes ([`forget`]).
//! 3. At the pod, `sk_lookup` leaves it to the application ([`leads_to_the_application`]), as far as the pod has a probe on that port.
//! 4. Both guards of the pod let its handshake pass ([`arrival`], [`is_answer`]), on the same ports, and by its numbers.

use core::ffi::c_void;
use core::ptr::null_mut;

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_STATE_CB_FLAG};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_sk_storage_delete, bpf_sk_storage_get,
};
use aya_ebpf::programs::{SkBuffContext, SockAddrContext, SockOpsContext};
use sheath_common::counters::Counter;
use sheath_common::event::{Event, EventKind};
use sheath_common::flow::GuardedKey;
use sheath_common::net::Endpoint;
use sheath_common::probe::{Probe, ProbeKey};
use sheath_common::selector::{BeginningKey, beginning_bits};
use sheath_common::workload::{Workload, WorkloadId};

use crate::ctx::sk_lookup::Lookup;
use crate::ctx::{self, sock_ops};
use crate::headers::segment;
use crate::lookup::is_own_address;
use crate::maps::{
    OWNERS, PROBE_PORTS, PROBER_PATHS, PROBERS, PROBES, PROBING, SCRATCH, contains, copied,
};
use crate::pods;
use crate::report::{count, send};

/// Values of the `PROBING` map: of a socket that has been connected, and of one whose connection is recorded, if there was room.
const MARKED: u32 = 0;
const RECORDED: u32 = 1;

/// Notes with the socket of a `connect()` whether it is a prober's: its process is in the kubelet's cgroup, not below it, and the
/// socket is of the host's network namespace. Without memory for the note, the connection is like anybody's.
#[inline(always)]
pub fn mark(ctx: &SockAddrContext) {
    // SAFETY: the helper takes no pointer.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    let is_prober = contains(&PROBERS, &cgroup) && pods::is_hosts(ctx::netns(ctx));
    // SAFETY: the socket of a sock_addr context is never null.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if is_prober {
            let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
            let mark = bpf_sk_storage_get(marks(), sk.cast(), null_mut(), flags).cast::<u32>();
            if let Some(mark) = mark.as_mut() {
                *mark = MARKED;
            }
        } else {
            bpf_sk_storage_delete(marks(), sk.cast());
        }
    }
}

/// Records a marked socket's connection. Only for `BPF_SOCK_OPS_TIMEOUT_INIT`, with which the kernel prepares a SYN: the source port
/// and the initial sequence number are chosen (net/ipv4/tcp_output.c, `tcp_connect_init`). Of a connection that comes in there is no
/// whole socket then.
#[inline(always)]
pub fn record(ctx: &SockOpsContext) {
    // Two programs may see it: of the cgroup to capture, and of the root.
    let Some(mark) = mark_of(ctx).filter(|mark| **mark == MARKED) else {
        return;
    };
    *mark = RECORDED;
    let probe = Probe {
        cookie: ctx::socket_cookie(ctx),
        // SAFETY: the helper takes no pointer.
        created_ns: unsafe { bpf_ktime_get_ns() },
        initial: sock_ops::unacknowledged(ctx),
        _reserved: 0,
    };
    if PROBES.insert(&key(ctx), &probe, 0).is_err() {
        count(Counter::ProbeLost);
        return;
    }
    // Best effort: without the callback the entry is swept by age.
    let flags = sock_ops::callbacks(ctx) | BPF_SOCK_OPS_STATE_CB_FLAG;
    let _ = ctx.set_cb_flags(flags as i32);
}

/// Removes the entry of a socket that closes.
#[inline(always)]
pub fn forget(ctx: &SockOpsContext) {
    if mark_of(ctx).is_none() {
        return;
    }
    let key = key(ctx);
    if copied(&PROBES, &key).map(|probe| probe.cookie) == Some(ctx::socket_cookie(ctx)) {
        let _ = PROBES.remove(&key);
    }
}

#[inline(always)]
fn key(ctx: &SockOpsContext) -> ProbeKey {
    ProbeKey { prober: sock_ops::local(ctx), probed: sock_ops::remote(ctx) }
}

#[inline(always)]
fn mark_of(ctx: &SockOpsContext) -> Option<&'static mut u32> {
    // SAFETY: the socket is checked for null; a non-null result points to a map value.
    unsafe {
        let sk = (*ctx.ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        bpf_sk_storage_get(marks(), sk.cast(), null_mut(), 0).cast::<u32>().as_mut()
    }
}

/// True if a connection is the kubelet's, to a port of a probe of the pod whose namespace this is. What else comes there from the
/// node itself is told: people look for it when probes fail.
#[inline(always)]
pub fn leads_to_the_application(lookup: &Lookup, netns: u64) -> bool {
    let Some(workload) = copied(&OWNERS, &netns) else {
        return false;
    };
    if !is_declared(workload, lookup.local.port) {
        return false;
    }
    if contains(&PROBES, &ProbeKey { prober: lookup.remote, probed: lookup.local }) {
        return true;
    }
    let host = pods::host_netns();
    if host != 0 && is_own_address(host, &lookup.remote.address) {
        count(Counter::ProbeUnmatched);
        send(Event {
            kind: EventKind::ProbeUnmatched as u32,
            netns,
            workload,
            source: lookup.remote,
            destination: lookup.local,
            ..Event::default()
        });
    }
    false
}

/// What a packet is that has come to a listening socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Nothing that is about probes.
    Other,
    /// Of a connection of the kubelet's, to a port of a probe.
    Probe,
    /// Of another connection with the same ends.
    Forged,
}

#[inline(always)]
pub fn arrival(ctx: &SkBuffContext, workload: &Workload, port: u32) -> Arrival {
    if !is_declared(workload.id, port) {
        return Arrival::Other;
    }
    let Some(segment) = segment(ctx) else {
        return Arrival::Other;
    };
    let probed = Endpoint { port, ..segment.destination };
    let Some(probe) = copied(&PROBES, &ProbeKey { prober: segment.source, probed }) else {
        return Arrival::Other;
    };
    if !probe.has_sent(&segment.numbers) || segment.destination.port != port {
        return Arrival::Forged;
    }
    if segment.numbers.is_syn {
        count(Counter::ProbePassed);
    }
    Arrival::Probe
}

/// True if a listening socket answers the kubelet on a port of a probe.
#[inline(always)]
pub fn is_answer(ctx: &SkBuffContext, workload: &Workload, port: u32) -> bool {
    if !is_declared(workload.id, port) {
        return false;
    }
    let Some(segment) = segment(ctx) else {
        return false;
    };
    let probe = copied(&PROBES, &ProbeKey { prober: segment.destination, probed: segment.source });
    segment.source.port == port && probe.is_some_and(|probe| probe.is_answered_by(&segment.numbers))
}

#[inline(always)]
fn is_declared(workload: WorkloadId, port: u32) -> bool {
    contains(&PROBE_PORTS, &GuardedKey { workload, port })
}

/// If the path that has been [read](crate::select::read) is that of a prober's cgroup, the new cgroup is a prober's.
#[inline(always)]
pub fn recognise(cgroup: u64) {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the slot belongs to this CPU, and the tracepoint is not entered twice on it. Behind `key_bits` lie the generation and at
    // least as many bytes of path as the key has of text.
    unsafe {
        (*scratch).generation = 0;
        (*scratch).key_bits = beginning_bits((*scratch).path_len);
        let key = (&raw const (*scratch).key_bits).cast::<Key<BeginningKey>>();
        // The trie finds the longest path that this one begins with: it must be all of it.
        if PROBER_PATHS.get(&*key).copied() == Some((*scratch).path_len) {
            let _ = PROBERS.insert(&cgroup, &0, 0);
        }
    }
}

#[inline(always)]
fn marks() -> *mut c_void {
    (&raw const PROBING).cast_mut().cast()
}
