//! The maps. Their names and shapes are the ABI that [`sheath_common::maps::ABI`] numbers.

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{
    Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage, SockHash,
};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_map;
use sheath_common::counters::Counter;
use sheath_common::enrolment::Overflow;
use sheath_common::event::Event;
use sheath_common::flow::{
    ActivatedKey, Connected, Flow, FlowKey, GuardedKey, LegKey, ListenerKey, LocalKey, LocalLeg,
    SOURCE_PREFIX_BITS, SilentKey, SourceKey, SteeredKey, Unreachable, UnreachableKey,
};
use sheath_common::maps as size;
use sheath_common::net::{Address, Endpoint};
use sheath_common::selector::{MAX_SELECTORS, Matcher, PATH_LEN, Selector};
use sheath_common::verdict::{
    Best, DESTINATION_PREFIX_BITS, Destination, DestinationKey, PORT_ANY, SCOPE_ALL,
};
use sheath_common::workload::{Workload, WorkloadId};

/// Cgroup id → the workload whose root it is.
#[btf_map]
pub static WORKLOADS: HashMap<u64, Workload, { size::MAX_WORKLOADS as usize }> = HashMap::new();

/// Cgroups that could not be recorded in `WORKLOADS`: what the programs have seen of them, and what the agent has seen to.
#[btf_map]
pub static OVERFLOW: Array<Overflow, 2> = Array::new();

/// The cgroup, by id, that the programs are attached to.
#[btf_map]
pub static CAPTURE: Array<u64, 1> = Array::new();

/// Cgroups that were workloads and are gone. Their sockets may live on in other hands, and ids are never used again; the
/// least recently used makes room for the next.
#[btf_map]
pub static DEPARTED: LruHashMap<u64, Workload, { size::MAX_DEPARTED as usize }> = LruHashMap::new();

/// How to recognise a new cgroup as a workload.
#[btf_map]
pub static SELECTORS: Array<Selector, { MAX_SELECTORS as usize }> = Array::new();

/// What the rules say about destinations.
#[btf_map]
pub static DESTINATIONS: LpmTrie<DestinationKey, Destination, { size::MAX_DESTINATIONS as usize }> =
    LpmTrie::new();

/// Network namespaces (by cookie) whose connections the agent takes. The value is reserved.
#[btf_map]
pub static NAMESPACES: HashMap<u64, u32, { size::MAX_NAMESPACES as usize }> = HashMap::new();

/// From a namespace to a destination: the address a connection would leave from.
#[btf_map]
pub static SOURCES: LpmTrie<SourceKey, Address, { size::MAX_SOURCES as usize }> = LpmTrie::new();

/// What a workload asked for when it connected a socket that must stay on loopback. Lives and dies with the socket.
#[btf_map]
pub static CONNECTED: SkStorage<Connected> = SkStorage::new();

/// Redirected connections between their SYN and the agent's `accept()`.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, Flow, { size::MAX_FLOWS as usize }> = HashMap::new();

/// Where the agent has tried in vain to connect to, a moment ago.
#[btf_map]
pub static UNREACHABLE: LruHashMap<
    UnreachableKey,
    Unreachable,
    { size::MAX_UNREACHABLE as usize },
> = LruHashMap::new();

/// The agent's sockets towards local servers → the client they stand for.
#[btf_map]
pub static CLIENTS: HashMap<LegKey, Endpoint, { size::MAX_LEGS as usize }> = HashMap::new();

/// The agent's sockets towards local servers: whose they must be. Lives and dies with the socket.
#[btf_map]
pub static LOCAL_LEGS: SkStorage<LocalLeg> = SkStorage::new();

/// The agent's listeners, as the ingress guard knows them. The value is reserved. Lives and dies with the socket.
#[btf_map]
pub static OWN_LISTENERS: SkStorage<u32> = SkStorage::new();

/// The agent's wire legs to an address of the same namespace: the only loopback traffic that is steered.
#[btf_map]
pub static WIRES: HashMap<LegKey, u32, { size::MAX_LEGS as usize }> = HashMap::new();

/// The agent's listeners.
#[btf_map]
pub static LISTENERS: SockHash<ListenerKey, { size::MAX_NAMESPACES as usize * 4 }> =
    SockHash::new();

/// Addresses and ports of namespaces whose connections go to the agent's inbound listener, or are left alone.
#[btf_map]
pub static STEERED: HashMap<SteeredKey, u32, { size::MAX_PORTS as usize }> = HashMap::new();

/// Steered ports of namespaces that nothing listens on: there the kernel may answer by itself.
#[btf_map]
pub static SILENT: HashMap<SilentKey, u32, { size::MAX_PORTS as usize }> = HashMap::new();

/// Addresses of namespaces' own. The value is reserved.
#[btf_map]
pub static LOCALS: HashMap<LocalKey, u32, { size::MAX_LOCALS as usize }> = HashMap::new();

/// Ports on which a workload must not answer the network itself. The value is reserved.
#[btf_map]
pub static GUARDED: HashMap<GuardedKey, u32, { size::MAX_PORTS as usize }> = HashMap::new();

/// Ports on which the listening sockets of a cgroup stand for a workload's. The value is reserved.
#[btf_map]
pub static ACTIVATED: HashMap<ActivatedKey, u32, { size::MAX_PORTS as usize }> = HashMap::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Counter::ALL.len() }> = PerCpuArray::new();

#[btf_map]
pub static EVENTS: RingBuf<Event, { size::EVENTS_BYTES as usize }> = RingBuf::new();

/// Working memory of the selector match: too large for the 512 bytes of BPF stack.
#[repr(C)]
pub struct Scratch {
    pub matcher: Matcher,
    pub selector: u32,
    pub path_len: u32,
    pub matched: u32,
    /// The path has been cut short.
    pub is_cut: u32,
    pub path: [u8; PATH_LEN],
}

#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// True if a map has an entry.
#[inline(always)]
pub fn contains<K, V, const N: usize>(map: &HashMap<K, V, N>, key: &K) -> bool {
    // SAFETY: only the presence of the entry matters.
    unsafe { map.get(key) }.is_some()
}

/// What a map has for a key.
#[inline(always)]
pub fn copied<K, V: Copy, const N: usize>(map: &HashMap<K, V, N>, key: &K) -> Option<V> {
    // SAFETY: the value is copied at once; an entry that is changed meanwhile is replaced whole.
    unsafe { map.get(key) }.copied()
}

/// The workload whose root a cgroup is.
#[inline(always)]
pub fn living(cgroup: &u64) -> Option<&'static Workload> {
    // SAFETY: the value is copied at once; an entry that is changed meanwhile is replaced whole.
    unsafe { WORKLOADS.get(cgroup) }
}

/// The same, of a cgroup that may be gone.
#[inline(always)]
pub fn ever(cgroup: &u64) -> Option<&'static Workload> {
    // SAFETY: as above.
    living(cgroup).or_else(|| unsafe { DEPARTED.get(cgroup) })
}

/// Looks a destination up in the four places that may have a rule for it. Not inlined: where it is called twice, the
/// verifier would follow the way on for each of the ways through all of it.
#[inline(never)]
pub fn best_rule(workload: WorkloadId, destination: &Endpoint) -> Best {
    let best = Best::default();
    let best = or_rule(best, workload, destination.port, &destination.address);
    let best = or_rule(best, workload, PORT_ANY, &destination.address);
    let best = or_rule(best, SCOPE_ALL, destination.port, &destination.address);
    or_rule(best, SCOPE_ALL, PORT_ANY, &destination.address)
}

#[inline(always)]
fn or_rule(best: Best, scope: u32, port: u32, address: &Address) -> Best {
    let key =
        Key::new(DESTINATION_PREFIX_BITS + 128, DestinationKey { scope, port, address: *address });
    best.or(DESTINATIONS.get(&key), port != PORT_ANY)
}

/// The address a connection from `netns` to `destination` leaves from, as far as the agent has told.
#[inline(always)]
pub fn source(netns: u64, destination: &Address) -> Option<Address> {
    let key = Key::new(SOURCE_PREFIX_BITS + 128, SourceKey { netns, destination: *destination });
    SOURCES.get(&key).copied()
}

/// The errno that a connection would end with, as far as the agent knows.
#[inline(always)]
pub fn unreachable(key: &UnreachableKey) -> Option<i32> {
    let known = UNREACHABLE.get_ptr_mut(key)?;
    // SAFETY: a map value stays readable and writable for the run of the program. The agent, who may write it at the
    // same time, is told a time that is a moment off at worst.
    unsafe {
        let now = bpf_ktime_get_ns();
        if now >= (*known).until_ns {
            return None;
        }
        (*known).asked_ns = now;
        Some((*known).errno as i32)
    }
}
