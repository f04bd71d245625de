//! The maps. Their names and shapes are the ABI that [`sheath_common::maps::ABI`] numbers.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
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
use sheath_common::pod_cgroups::{self, Comparison, PodRules};
use sheath_common::pod_uid::PodUid;
use sheath_common::probe::{Probe, ProbeKey};
use sheath_common::selector::{
    BeginningKey, Glob, MAX_PATTERNS, Matcher, PATH_LEN, Pattern, PatternKey, Search,
};
use sheath_common::verdict::{
    self, ADDRESS_BITS, Best, DESTINATION_PREFIX_BITS, Destination, DestinationKey, Known, Tables,
};
use sheath_common::workload::{Workload, WorkloadId};

/// Takes memory for an entry when it is added: for maps to which the agent alone adds entries. The others have all that they
/// may ever need from the start, so that programs never lack any.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

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

/// How to recognise a new cgroup as a workload, by generation and number; room for the generation in force and the next.
#[btf_map]
pub static PATTERNS: HashMap<PatternKey, Pattern, { 2 * MAX_PATTERNS as usize }, ON_DEMAND> =
    HashMap::new();

/// Generation and beginning of a path → number of the first pattern to compare the path with.
#[btf_map]
pub static BEGINNINGS: LpmTrie<BeginningKey, u32, { 2 * MAX_PATTERNS as usize }> = LpmTrie::new();

/// The generation of patterns in force.
#[btf_map]
pub static GENERATION: Array<u32, 1> = Array::new();

/// Pods that somebody has decided about, whether their cgroups are there or not. [`Workload::NOBODY`] is a pod that is left
/// alone.
#[btf_map]
pub static PODS: HashMap<PodUid, Workload, { size::MAX_PODS as usize }, ON_DEMAND> = HashMap::new();

/// How pods are recognised: two sets of rules, of which the generation chooses one.
#[btf_map]
pub static POD_RULES: Array<PodRules, { pod_cgroups::RULES }> = Array::new();

/// The generation of rules about pods in force.
#[btf_map]
pub static POD_GENERATION: Array<u32, 1> = Array::new();

/// Sockets of the host's network namespace that held pods may have made. The value is reserved. Lives and dies with the socket.
#[btf_map]
pub static HOST_SOCKETS: SkStorage<u32> = SkStorage::new();

/// What the rules say about single addresses.
#[btf_map]
pub static ADDRESSES: HashMap<
    DestinationKey,
    Destination,
    { size::MAX_ADDRESSES as usize },
    ON_DEMAND,
> = HashMap::new();

/// What the rules say about address prefixes.
#[btf_map]
pub static PREFIXES: LpmTrie<DestinationKey, Destination, { size::MAX_PREFIXES as usize }> =
    LpmTrie::new();

/// What is known of addresses of the cluster: those of pods, and of Services with their ports.
#[btf_map]
pub static DIRECTORY: HashMap<Endpoint, Known, { size::MAX_DIRECTORY as usize }, ON_DEMAND> =
    HashMap::new();

/// Network namespaces (by cookie) whose connections the agent takes. The value is reserved.
#[btf_map]
pub static NAMESPACES: HashMap<u64, u32, { size::MAX_NAMESPACES as usize }, ON_DEMAND> =
    HashMap::new();

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
pub static CLIENTS: HashMap<LegKey, Endpoint, { size::MAX_LEGS as usize }, ON_DEMAND> =
    HashMap::new();

/// The agent's sockets towards local servers: whose they must be. Lives and dies with the socket.
#[btf_map]
pub static LOCAL_LEGS: SkStorage<LocalLeg> = SkStorage::new();

/// The agent's listeners, as the ingress guard knows them. The value is reserved. Lives and dies with the socket.
#[btf_map]
pub static OWN_LISTENERS: SkStorage<u32> = SkStorage::new();

/// The agent's wire legs to an address of the same namespace: the only loopback traffic that is steered.
#[btf_map]
pub static WIRES: HashMap<LegKey, u32, { size::MAX_LEGS as usize }, ON_DEMAND> = HashMap::new();

/// The agent's listeners.
#[btf_map]
pub static LISTENERS: SockHash<ListenerKey, { size::MAX_NAMESPACES as usize * 4 }> =
    SockHash::new();

/// Addresses and ports of namespaces whose connections go to the agent's inbound listener, or are left alone.
#[btf_map]
pub static STEERED: HashMap<SteeredKey, u32, { size::MAX_PORTS as usize }, ON_DEMAND> =
    HashMap::new();

/// Steered ports of namespaces that nothing listens on: there the kernel may answer by itself.
#[btf_map]
pub static SILENT: HashMap<SilentKey, u32, { size::MAX_PORTS as usize }, ON_DEMAND> =
    HashMap::new();

/// Addresses of namespaces' own. The value is reserved.
#[btf_map]
pub static LOCALS: HashMap<LocalKey, u32, { size::MAX_LOCALS as usize }, ON_DEMAND> =
    HashMap::new();

/// Ports on which a workload must not answer the network itself. The value is reserved.
#[btf_map]
pub static GUARDED: HashMap<GuardedKey, u32, { size::MAX_PORTS as usize }, ON_DEMAND> =
    HashMap::new();

/// Ports on which the listening sockets of a cgroup stand for a workload's. The value is reserved.
#[btf_map]
pub static ACTIVATED: HashMap<ActivatedKey, u32, { size::MAX_PORTS as usize }, ON_DEMAND> =
    HashMap::new();

/// Cgroups whose processes are probers, by id. The value is reserved.
#[btf_map]
pub static PROBERS: HashMap<u64, u32, { size::MAX_PROBERS as usize }> = HashMap::new();

/// Paths of such cgroups, by which they are recognised when they are made anew → how long the path is. The generation is zero.
#[btf_map]
pub static PROBER_PATHS: LpmTrie<BeginningKey, u32, { size::MAX_PROBERS as usize }> =
    LpmTrie::new();

/// Sockets of probers, and whether their connection is recorded. Lives and dies with the socket.
#[btf_map]
pub static PROBING: SkStorage<u32> = SkStorage::new();

/// Connections that probers have open.
#[btf_map]
pub static PROBES: HashMap<ProbeKey, Probe, { size::MAX_PROBES as usize }> = HashMap::new();

/// Ports on which a workload is probed. The value is reserved.
#[btf_map]
pub static PROBE_PORTS: HashMap<GuardedKey, u32, { size::MAX_PORTS as usize }, ON_DEMAND> =
    HashMap::new();

/// Network namespaces (by cookie) in which a workload has every port.
#[btf_map]
pub static OWNERS: HashMap<u64, WorkloadId, { size::MAX_NAMESPACES as usize }, ON_DEMAND> =
    HashMap::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Counter::ALL.len() }> = PerCpuArray::new();

#[btf_map]
pub static EVENTS: RingBuf<Event, { size::EVENTS_BYTES as usize }> = RingBuf::new();

/// Working memory of the search for what a path stands for: too large for the 512 bytes of BPF stack.
#[repr(C)]
pub struct Scratch {
    pub search: Search,
    /// The pattern that the path is being compared with.
    pub glob: Glob,
    pub matcher: Matcher,
    pub is_match: u32,
    /// What the best pattern so far stands for.
    pub workload: Workload,
    /// The path's last characters.
    pub last: u64,
    pub path_len: u32,
    /// The path has been cut short.
    pub is_cut: u32,
    /// A pattern was not there: all are just being replaced.
    pub is_torn: u32,
    /// How many bits of the two fields that follow count: with these, and as far as it is that long, this is a key of
    /// [`BEGINNINGS`].
    pub key_bits: u32,
    pub generation: u32,
    pub path: [u8; PATH_LEN],
    /// Of the path with those of pods, by the rules of a generation.
    pub pod: Comparison,
    pub pod_generation: u32,
}

#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// True if a map has an entry.
#[inline(always)]
pub fn contains<K, V, const N: usize, const F: usize>(map: &HashMap<K, V, N, F>, key: &K) -> bool {
    // SAFETY: only the presence of the entry matters.
    unsafe { map.get(key) }.is_some()
}

/// What a map has for a key.
#[inline(always)]
pub fn copied<K, V: Copy, const N: usize, const F: usize>(
    map: &HashMap<K, V, N, F>,
    key: &K,
) -> Option<V> {
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

/// A pattern, which may be replaced while it is looked at: the generation tells afterwards.
#[inline(always)]
pub fn pattern(generation: u32, number: u32) -> Option<&'static Pattern> {
    // SAFETY: the memory of an entry stays a pattern's while the program runs, even when the entry is gone.
    unsafe { PATTERNS.get(&PatternKey { generation, number }) }
}

/// What was decided about a pod.
#[inline(always)]
pub fn pod(uid: &PodUid) -> Option<&'static Workload> {
    // SAFETY: the value is copied at once; an entry that is changed meanwhile is replaced whole.
    unsafe { PODS.get(uid) }
}

/// What the rules say about a destination.
#[inline(always)]
pub fn best_rule(workload: WorkloadId, destination: &Endpoint) -> Best {
    Best::from_bits(best_rule_bits(workload, destination))
}

/// [`best_rule`] as a global function (`main.rs`). Nobody passes null, but the verifier does not know; the answer would be a
/// rule that protects.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn best_rule_bits(workload: WorkloadId, destination: *const Endpoint) -> u32 {
    // SAFETY: the callers' reference, which lives on their stack.
    let Some(destination) = (unsafe { destination.as_ref() }) else {
        return u32::MAX;
    };
    // On Linux 6.1 the key of a map cannot be an argument of a global function: it has to be on the function's own stack.
    let destination = *destination;
    verdict::best_rule(workload, &destination, &Rules).to_bits()
}

/// The rules, and the directory.
struct Rules;

impl Tables<'static> for Rules {
    #[inline(always)]
    fn address(&self, key: &DestinationKey) -> Option<&'static Destination> {
        // SAFETY: the value is copied at once; a concurrent change of an entry replaces it whole.
        unsafe { ADDRESSES.get(key) }
    }

    #[inline(always)]
    fn prefix(&self, key: &DestinationKey) -> Option<&'static Destination> {
        PREFIXES.get(&Key::new(DESTINATION_PREFIX_BITS + ADDRESS_BITS, *key))
    }

    #[inline(always)]
    fn directory(&self, key: &Endpoint) -> Option<&'static Known> {
        // SAFETY: as above.
        unsafe { DIRECTORY.get(key) }
    }
}

/// The address a connection from `netns` to `destination` leaves from, as far as the agent has told.
#[inline(always)]
pub fn source(netns: u64, destination: &Address) -> Option<Address> {
    let key =
        Key::new(SOURCE_PREFIX_BITS + ADDRESS_BITS, SourceKey { netns, destination: *destination });
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
