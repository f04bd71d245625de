//! What a workload asked for when it connected a socket, remembered with the socket ([`CONNECTED`]).

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile};

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::generated::{
    bpf_sk_storage_delete, bpf_sk_storage_get, bpf_skc_to_mptcp_sock,
};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
use sheath_common::flow::Connected;

use crate::maps::CONNECTED;

/// Set by the loader where the kernel has MPTCP. Where it has not, the verifier sees a constant zero and
/// never looks at the helper call that such a kernel would refuse.
#[unsafe(no_mangle)]
static MPTCP: u8 = 0;

/// What was remembered about this socket at `connect()`.
#[inline(always)]
pub fn of_call(ctx: &SockAddrContext) -> Option<Connected> {
    // SAFETY: the socket of a sock_addr context is never null; a non-null result points to a map value.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        bpf_sk_storage_get(map(), sk.cast(), null_mut(), 0).cast::<Connected>().as_ref().copied()
    }
}

/// Remembers `connected` with this socket. False if the kernel has no memory for it.
#[inline(always)]
pub fn remember(ctx: &SockAddrContext, connected: &Connected) -> bool {
    // SAFETY: as in `of_call`; the value is written whole.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        let stored = bpf_sk_storage_get(map(), sk.cast(), null_mut(), flags).cast::<Connected>();
        match stored.as_mut() {
            Some(slot) => {
                *slot = *connected;
                true
            }
            None => false,
        }
    }
}

/// Forgets what an earlier `connect()` of the same socket left.
#[inline(always)]
pub fn forget(ctx: &SockAddrContext) {
    // SAFETY: as in `of_call`. That there is nothing to delete is the usual case.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        bpf_sk_storage_delete(map(), sk.cast());
    }
}

/// What was remembered at `connect()` about the socket of this callback.
#[inline(always)]
pub fn of_event(ctx: &SockOpsContext) -> Option<Connected> {
    // SAFETY: `sk` is checked for null.
    unsafe {
        let sk = (*ctx.ops).__bindgen_anon_2.sk;
        if sk.is_null() { None } else { of_socket(sk.cast()) }
    }
}

/// What was remembered at `connect()` about a socket. An MPTCP subflow is a socket of its own, so for it the MPTCP
/// socket above is asked.
///
/// # Safety
/// `sk` is a socket that the verifier knows as such, and not null.
#[inline(always)]
pub unsafe fn of_socket(sk: *mut c_void) -> Option<Connected> {
    // SAFETY: both helpers take a socket pointer; a non-null result of the storage helper points to a map value.
    unsafe {
        let none = null_mut();
        let stored = bpf_sk_storage_get(map(), sk, none, 0).cast::<Connected>();
        if let Some(connected) = stored.as_ref() {
            return Some(*connected);
        }
        if read_volatile(&raw const MPTCP) == 0 {
            return None;
        }
        let mptcp = bpf_skc_to_mptcp_sock(sk);
        if mptcp.is_null() {
            return None;
        }
        bpf_sk_storage_get(map(), mptcp.cast(), none, 0).cast::<Connected>().as_ref().copied()
    }
}

/// The MPTCP socket above a subflow; null for any other socket.
///
/// # Safety
/// `sk` is a socket that the verifier knows as such, and not null.
#[inline(always)]
pub unsafe fn mptcp_socket_of(sk: *mut c_void) -> *mut c_void {
    // SAFETY: as the caller says.
    unsafe {
        if read_volatile(&raw const MPTCP) == 0 {
            return null_mut();
        }
        bpf_skc_to_mptcp_sock(sk).cast()
    }
}

/// Remembers `connected` with the MPTCP socket above the subflow of this callback as well, if it is one: it is that
/// socket which the application asks for its addresses. That there is no memory for it costs no more than the answer.
#[inline(always)]
pub fn remember_above(ctx: &SockOpsContext, connected: &Connected) {
    // SAFETY: both socket pointers are checked for null; the value is read by the helper alone.
    unsafe {
        let sk = (*ctx.ops).__bindgen_anon_2.sk;
        if sk.is_null() || read_volatile(&raw const MPTCP) == 0 {
            return;
        }
        let mptcp = bpf_skc_to_mptcp_sock(sk.cast());
        if mptcp.is_null() {
            return;
        }
        let value = (&raw const *connected).cast_mut().cast();
        let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        let stored = bpf_sk_storage_get(map(), mptcp.cast(), value, flags);
        if let Some(slot) = stored.cast::<Connected>().as_mut() {
            *slot = *connected;
        }
    }
}

/// The map as the helpers take it: aya's own methods cover neither `sock_ops` nor MPTCP sockets.
#[inline(always)]
fn map() -> *mut c_void {
    (&raw const CONNECTED).cast_mut().cast()
}
