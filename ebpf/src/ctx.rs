//! Every read and write of a program's context, but for the records of tracepoints (`enrol`).
//!
//! Fields are read one 32-bit word at a time with volatile accesses: the verifier refuses the wider loads
//! that the compiler would otherwise merge them into.

use core::ffi::c_void;
use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_ops};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval, bpf_sk_fullsock,
    bpf_sk_storage_delete, bpf_sk_storage_get, bpf_skc_to_mptcp_sock,
};
use aya_ebpf::programs::{
    SkBuffContext, SkLookupContext, SockAddrContext, SockContext, SockOpsContext,
};
use sheath_common::flow::Connected;
use sheath_common::net::{AF_INET6, Address, Endpoint, port_from_sock_addr, port_to_sock_addr};
use sheath_common::workload::{NO_WORKLOAD, WorkloadId};

use crate::maps::CONNECTED;

/// Set by the loader where the kernel has MPTCP. Where it has not, the verifier sees a constant zero and
/// never looks at the helper call that such a kernel would refuse.
#[unsafe(no_mangle)]
static MPTCP: u8 = 0;

/// Set by the loader: the cookie of the network namespace that this copy of the `sk_lookup` program is
/// attached to (the helper that would tell is not open to it).
#[unsafe(no_mangle)]
static NETNS: u64 = 0;

/// Cookie of the socket's network namespace.
#[inline(always)]
pub fn netns(ctx: &impl EbpfContext) -> u64 {
    // SAFETY: the helper takes the program's own context.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// Cookie of the `sk_lookup` program's network namespace.
#[inline(always)]
pub fn lookup_netns() -> u64 {
    // SAFETY: a read of a static; volatile because the loader, not the program, writes it.
    unsafe { read_volatile(&raw const NETNS) }
}

/// Makes the system call fail with `errno` (positive) when the program then returns 0.
#[inline(always)]
pub fn set_errno(errno: i32) {
    // SAFETY: the helper takes no pointer.
    unsafe { bpf_set_retval(-errno) };
}

// ---- bpf_sock ------------------------------------------------------------------------------------------

/// Protocol of a socket that is being made.
#[inline(always)]
pub fn new_sockets_protocol(ctx: &SockContext) -> u32 {
    // SAFETY: the kernel passes a valid context for the run of the program.
    unsafe { read_volatile(&raw const (*ctx.sock).protocol) }
}

// ---- bpf_sock_addr -------------------------------------------------------------------------------------

#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u32 {
    // SAFETY: the kernel passes a valid context for the run of the program; this holds for all reads below.
    unsafe { read_volatile(&raw const (*ctx.sock_addr).protocol) }
}

/// Index of the interface that the socket is bound to, a VRF's included; zero if it is to none.
#[inline(always)]
pub fn bound_device(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as in `protocol`; the socket of a sock_addr context is never null.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        read_volatile(&raw const (*sk).bound_dev_if)
    }
}

/// The socket's `SO_MARK`.
#[inline(always)]
pub fn mark(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as in `protocol`; the socket of a sock_addr context is never null.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        read_volatile(&raw const (*sk).mark)
    }
}

/// The family of a sock_addr hook. Which address fields a program may touch follows from the hook it is for,
/// so the choice is made when it is compiled.
pub trait Family {
    fn ip(ctx: &SockAddrContext) -> Address;
    fn set_ip(ctx: &SockAddrContext, address: &Address);

    /// The address of the system call.
    #[inline(always)]
    fn endpoint(ctx: &SockAddrContext) -> Endpoint {
        // SAFETY: as in `protocol`.
        let port = unsafe { read_volatile(&raw const (*ctx.sock_addr).user_port) };
        Endpoint { address: Self::ip(ctx), port: u32::from(port_from_sock_addr(port)) }
    }

    /// Replaces the address of the system call.
    #[inline(always)]
    fn set_endpoint(ctx: &SockAddrContext, endpoint: &Endpoint) {
        Self::set_ip(ctx, &endpoint.address);
        let port = port_to_sock_addr(endpoint.port as u16);
        // SAFETY: as in `protocol`; the field is writable in all hooks used here.
        unsafe { write_volatile(&raw mut (*ctx.sock_addr).user_port, port) };
    }
}

/// `AF_INET` sockets.
pub struct V4;

/// `AF_INET6` sockets, IPv4-mapped addresses included.
pub struct V6;

impl Family for V4 {
    #[inline(always)]
    fn ip(ctx: &SockAddrContext) -> Address {
        // SAFETY: as in `protocol`.
        Address::from_v4(unsafe { read_volatile(&raw const (*ctx.sock_addr).user_ip4) })
    }

    #[inline(always)]
    fn set_ip(ctx: &SockAddrContext, address: &Address) {
        // SAFETY: as in `protocol`; the field is writable in all hooks used here.
        unsafe { write_volatile(&raw mut (*ctx.sock_addr).user_ip4, address.words[3]) };
    }
}

impl Family for V6 {
    #[inline(always)]
    fn ip(ctx: &SockAddrContext) -> Address {
        // SAFETY: as in `protocol`; the indices are in bounds.
        let word = |i: usize| unsafe { read_volatile(&raw const (*ctx.sock_addr).user_ip6[i]) };
        Address::from_v6([word(0), word(1), word(2), word(3)])
    }

    #[inline(always)]
    fn set_ip(ctx: &SockAddrContext, address: &Address) {
        // SAFETY: as in `protocol`; the fields are writable in all hooks used here, the indices in bounds.
        let set = |i: usize| unsafe {
            write_volatile(&raw mut (*ctx.sock_addr).user_ip6[i], address.words[i]);
        };
        set(0);
        set(1);
        set(2);
        set(3);
    }
}

/// The map as the helpers take it: aya's own methods cover neither `sock_ops` nor MPTCP sockets.
#[inline(always)]
fn connected_sockets() -> *mut c_void {
    (&raw const CONNECTED).cast_mut().cast()
}

/// What was remembered about this socket at `connect()`.
#[inline(always)]
pub fn connected(ctx: &SockAddrContext) -> Option<Connected> {
    // SAFETY: the socket of a sock_addr context is never null; a non-null result points to a map value.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        bpf_sk_storage_get(connected_sockets(), sk.cast(), core::ptr::null_mut(), 0)
            .cast::<Connected>()
            .as_ref()
            .copied()
    }
}

/// Remembers `connected` with this socket. False if the kernel has no memory for it.
#[inline(always)]
pub fn remember(ctx: &SockAddrContext, connected: &Connected) -> bool {
    // SAFETY: as in `connected`; the value is written whole.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        let stored =
            bpf_sk_storage_get(connected_sockets(), sk.cast(), core::ptr::null_mut(), flags)
                .cast::<Connected>();
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
    // SAFETY: as in `connected`. That there is nothing to delete is the usual case.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        bpf_sk_storage_delete(connected_sockets(), sk.cast());
    }
}

// ---- bpf_sock_ops --------------------------------------------------------------------------------------

#[inline(always)]
pub fn op(ctx: &SockOpsContext) -> u32 {
    // SAFETY: the kernel passes a valid context for the run of the program; this holds for all reads below.
    unsafe { read_volatile(&raw const (*ctx.ops).op) }
}

/// Argument of the callback: the old and the new state for `STATE_CB`.
#[inline(always)]
pub fn arg(ctx: &SockOpsContext, index: usize) -> u32 {
    // SAFETY: as in `op`; `index` is 0 or 1.
    unsafe { read_volatile(&raw const (*ctx.ops).__bindgen_anon_1.args[index]) }
}

/// Local address and port. An IPv4-mapped socket is still without an IPv6 address when its SYN is about to
/// leave, so its remote address tells the family and the IPv4 field the address.
#[inline(always)]
pub fn local(ctx: &SockOpsContext) -> Endpoint {
    // Everything is read before anything is decided: the compiler would otherwise merge the loads of two
    // branches into one through a computed pointer, which the verifier refuses.
    // SAFETY: as in `op`; the indices are in bounds.
    let (family, port, v4, v6, remote) = unsafe {
        let ops: *mut bpf_sock_ops = ctx.ops;
        let v6 = |i: usize| read_volatile(&raw const (*ops).local_ip6[i]);
        let remote = |i: usize| read_volatile(&raw const (*ops).remote_ip6[i]);
        (
            read_volatile(&raw const (*ops).family),
            read_volatile(&raw const (*ops).local_port),
            Address::from_v4(read_volatile(&raw const (*ops).local_ip4)),
            Address::from_v6([v6(0), v6(1), v6(2), v6(3)]),
            Address::from_v6([remote(0), remote(1), remote(2), remote(3)]),
        )
    };
    let address = if family == AF_INET6 && !remote.is_v4() { v6 } else { v4 };
    Endpoint { address, port }
}

/// What was remembered at `connect()` about the socket of this callback.
#[inline(always)]
pub fn connected_of_event(ctx: &SockOpsContext) -> Option<Connected> {
    // SAFETY: `sk` is checked for null.
    unsafe {
        let sk = (*ctx.ops).__bindgen_anon_2.sk;
        if sk.is_null() { None } else { connected_of(sk.cast()) }
    }
}

/// What was remembered at `connect()` about a socket. An MPTCP subflow is a socket of its own, so for it the MPTCP
/// socket above is asked.
///
/// # Safety
/// `sk` is a socket that the verifier knows as such, and not null.
#[inline(always)]
pub unsafe fn connected_of(sk: *mut c_void) -> Option<Connected> {
    // SAFETY: both helpers take a socket pointer; a non-null result of the storage helper points to a map value.
    unsafe {
        let none = core::ptr::null_mut();
        let stored = bpf_sk_storage_get(connected_sockets(), sk, none, 0).cast::<Connected>();
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
        bpf_sk_storage_get(connected_sockets(), mptcp.cast(), none, 0)
            .cast::<Connected>()
            .as_ref()
            .copied()
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
        let stored = bpf_sk_storage_get(connected_sockets(), mptcp.cast(), value, flags);
        if let Some(slot) = stored.cast::<Connected>().as_mut() {
            *slot = *connected;
        }
    }
}

#[inline(always)]
pub fn socket_cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper takes the program's own context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

// ---- bpf_sk_lookup -------------------------------------------------------------------------------------

/// What `sk_lookup` is asked about.
pub struct Lookup {
    pub family: u32,
    pub protocol: u32,
    pub local: Endpoint,
    pub remote: Endpoint,
    pub ingress_ifindex: u32,
}

#[inline(always)]
pub fn lookup(ctx: &SkLookupContext) -> Lookup {
    // As in `local`: first read, then decide.
    // SAFETY: the kernel passes a valid context for the run of the program; the indices are in bounds.
    unsafe {
        let lookup = ctx.lookup;
        let local = |i: usize| read_volatile(&raw const (*lookup).local_ip6[i]);
        let remote = |i: usize| read_volatile(&raw const (*lookup).remote_ip6[i]);
        let family = read_volatile(&raw const (*lookup).family);
        let v4 = (
            Address::from_v4(read_volatile(&raw const (*lookup).local_ip4)),
            Address::from_v4(read_volatile(&raw const (*lookup).remote_ip4)),
        );
        let v6 = (
            Address::from_v6([local(0), local(1), local(2), local(3)]),
            Address::from_v6([remote(0), remote(1), remote(2), remote(3)]),
        );
        let local_port = read_volatile(&raw const (*lookup).local_port);
        let remote_port = read_volatile(&raw const (*lookup).remote_port);
        let (local, remote) = if family == AF_INET6 { v6 } else { v4 };
        Lookup {
            family,
            protocol: read_volatile(&raw const (*lookup).protocol),
            local: Endpoint { address: local, port: local_port },
            remote: Endpoint { address: remote, port: u32::from(u16::from_be(remote_port)) },
            ingress_ifindex: read_volatile(&raw const (*lookup).ingress_ifindex),
        }
    }
}

// ---- __sk_buff -----------------------------------------------------------------------------------------

/// The TCP (or other) socket that a packet belongs to.
pub struct PacketSocket {
    pub protocol: u32,
    pub state: u32,
    pub local_port: u32,
    pub remote_port: u32,
    /// As far as it speaks IPv4.
    pub remote_v4: Address,
    /// As far as it speaks IPv6.
    pub remote_v6: Address,
    /// True if a workload has connected it to the agent or to loopback: `confined_by`.
    pub is_confined: bool,
    /// True if that was to the agent.
    pub is_turned: bool,
    pub confined_by: WorkloadId,
}

/// Index of the interface a packet is about to leave by, or has come by.
#[inline(always)]
pub fn interface(ctx: &SkBuffContext) -> u32 {
    // SAFETY: the kernel passes a valid context for the run of the program; this holds for all reads below.
    unsafe { read_volatile(&raw const (*ctx.skb.skb).ifindex) }
}

#[inline(always)]
pub fn is_v4_packet(ctx: &SkBuffContext) -> bool {
    const ETH_P_IP: u16 = 0x0800;
    // SAFETY: as in `interface`.
    let protocol = unsafe { read_volatile(&raw const (*ctx.skb.skb).protocol) };
    protocol == u32::from(ETH_P_IP.to_be())
}

/// Calls `look` with the packet's socket, if it is whole. That of a connection which is not accepted yet is its listener.
#[inline(always)]
pub fn with_socket<T>(ctx: &SkBuffContext, none: T, look: impl FnOnce(*mut bpf_sock) -> T) -> T {
    // SAFETY: both pointers are checked for null before they are used.
    unsafe {
        let sk = read_volatile(&raw const (*ctx.skb.skb).__bindgen_anon_2.sk);
        if sk.is_null() {
            return none;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() { none } else { look(sk) }
    }
}

/// The packet's socket.
#[inline(always)]
pub fn packet_socket(ctx: &SkBuffContext) -> Option<PacketSocket> {
    // SAFETY: the socket is whole and not null; the storage helper takes one.
    with_socket(ctx, None, |sk| unsafe {
        let protocol = read_volatile(&raw const (*sk).protocol);
        let state = read_volatile(&raw const (*sk).state);
        let local_port = read_volatile(&raw const (*sk).src_port);
        let remote_port = read_volatile(&raw const (*sk).dst_port);
        let v4 = read_volatile(&raw const (*sk).dst_ip4);
        let word = |i: usize| read_volatile(&raw const (*sk).dst_ip6[i]);
        let v6 = [word(0), word(1), word(2), word(3)];
        // Not an option: the verifier does not let one be copied whose value is not there.
        let (is_confined, is_turned, confined_by) = match connected_of(sk.cast()) {
            Some(connected) => (true, connected.is_turned != 0, connected.workload),
            None => (false, false, NO_WORKLOAD),
        };
        Some(PacketSocket {
            protocol,
            state,
            local_port,
            remote_port: u32::from(u16::from_be(remote_port)),
            remote_v4: Address::from_v4(v4),
            remote_v6: Address::from_v6(v6),
            is_confined,
            is_turned,
            confined_by,
        })
    })
}

#[inline(always)]
pub fn packet_socket_cookie(ctx: &SkBuffContext) -> u64 {
    // SAFETY: the helper takes the program's own context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}
