//! The maps that the agent and the BPF programs share, under their names in `ebpf/src/maps.rs`.

use std::collections::HashSet;
use std::io;

use sheath_common::counters::Counter;
use sheath_common::enrolment::Overflow;
use sheath_common::flow::{
    ActivatedKey, Flow, FlowKey, GuardedKey, LegKey, LocalKey, LocalLeg, SOURCE_PREFIX_BITS,
    SilentKey, SourceKey, SteeredKey, Unreachable, UnreachableKey,
};
use sheath_common::net::Address;
use sheath_common::workload::Workload;

use super::clients::Clients;
use super::destinations::DestinationMaps;
use super::directory::DirectoryMaps;
use super::listeners::ListenerMap;
use super::pattern_maps::PatternMaps;
use super::pins::Pins;
use super::pod_maps::PodMaps;
use super::probe_maps::ProbeMaps;
use crate::sys::bpf::{PerCpuCounters, Prefix, SocketFd, Table};

/// Name of the map with the numbers of workloads. No program uses it.
pub const WORKLOAD_IDS: &str = "WORKLOAD_IDS";

/// Names of all maps that are pinned.
pub const PINNED: [&str; 38] = [
    WORKLOAD_IDS,
    "WORKLOADS",
    "DEPARTED",
    "OVERFLOW",
    "CAPTURE",
    "PATTERNS",
    "BEGINNINGS",
    "GENERATION",
    "PODS",
    "POD_RULES",
    "POD_GENERATION",
    "HOST_SOCKETS",
    "ADDRESSES",
    "PREFIXES",
    "DIRECTORY",
    "NAMESPACES",
    "SOURCES",
    "CONNECTED",
    "FLOWS",
    "UNREACHABLE",
    "CLIENTS",
    "LOCAL_LEGS",
    "OWN_LISTENERS",
    "WIRES",
    "LISTENERS",
    "STEERED",
    "SILENT",
    "LOCALS",
    "GUARDED",
    "ACTIVATED",
    "PROBERS",
    "PROBER_PATHS",
    "PROBING",
    "PROBES",
    "PROBE_PORTS",
    "OWNERS",
    "COUNTERS",
    "EVENTS",
];

#[derive(Debug)]
pub struct Maps {
    pub workloads: Table<u64, Workload>,
    pub overflow: Table<u32, Overflow>,
    capture: Table<u32, u64>,
    pub patterns: PatternMaps,
    pub pods: PodMaps,
    pub probes: ProbeMaps,
    pub destinations: DestinationMaps,
    pub directory: DirectoryMaps,
    pub namespaces: Table<u64, u32>,
    pub sources: Table<Prefix<SourceKey>, Address>,
    pub flows: Table<FlowKey, Flow>,
    pub unreachable: Table<UnreachableKey, Unreachable>,
    pub clients: Clients,
    /// By socket.
    pub local_legs: Table<SocketFd, LocalLeg>,
    pub own_listeners: Table<SocketFd, u32>,
    pub wires: Table<LegKey, u32>,
    pub listeners: ListenerMap,
    pub steered: Table<SteeredKey, u32>,
    pub silent: Table<SilentKey, u32>,
    locals: Table<LocalKey, u32>,
    guarded: Table<GuardedKey, u32>,
    activated: Table<ActivatedKey, u32>,
    counters: PerCpuCounters,
}

impl Maps {
    /// Opens the maps by their pins.
    ///
    /// # Errors
    /// `NotFound` if a map is not pinned, `InvalidData` if it has another shape than this agent's.
    pub fn open(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            workloads: Table::open(&pins.map("WORKLOADS"))?,
            overflow: Table::open(&pins.map("OVERFLOW"))?,
            capture: Table::open(&pins.map("CAPTURE"))?,
            patterns: PatternMaps::open(pins)?,
            pods: PodMaps::open(pins)?,
            probes: ProbeMaps::open(pins)?,
            destinations: DestinationMaps::open(pins)?,
            directory: DirectoryMaps::open(pins)?,
            namespaces: Table::open(&pins.map("NAMESPACES"))?,
            sources: Table::open(&pins.map("SOURCES"))?,
            flows: Table::open(&pins.map("FLOWS"))?,
            unreachable: Table::open(&pins.map("UNREACHABLE"))?,
            clients: Clients::open(&pins.map("CLIENTS"))?,
            local_legs: Table::open(&pins.map("LOCAL_LEGS"))?,
            own_listeners: Table::open(&pins.map("OWN_LISTENERS"))?,
            wires: Table::open(&pins.map("WIRES"))?,
            listeners: ListenerMap::open(&pins.map("LISTENERS"))?,
            steered: Table::open(&pins.map("STEERED"))?,
            silent: Table::open(&pins.map("SILENT"))?,
            locals: Table::open(&pins.map("LOCALS"))?,
            guarded: Table::open(&pins.map("GUARDED"))?,
            activated: Table::open(&pins.map("ACTIVATED"))?,
            counters: PerCpuCounters::open(&pins.map("COUNTERS"))?,
        })
    }

    /// Tells the kernel which cgroup the programs are attached to.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn set_capture(&self, cgroup: u64) -> io::Result<()> {
        if self.capture.get(&0)? == Some(cgroup) {
            return Ok(());
        }
        self.capture.insert(&0, &cgroup)
    }

    /// Adds ports on which workloads must not answer the network themselves.
    ///
    /// # Errors
    /// If the map cannot be written, for want of room for instance.
    pub fn add_guarded(&self, ports: &HashSet<GuardedKey>) -> io::Result<()> {
        ports.iter().try_for_each(|port| self.guarded.insert(port, &0))
    }

    /// Removes all other such ports.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn prune_guarded(&self, ports: &HashSet<GuardedKey>) -> io::Result<()> {
        self.guarded.keep_only(ports)
    }

    /// Sets the ports on which sockets of service managers must not answer the network themselves.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn set_activated(&self, ports: &HashSet<ActivatedKey>) -> io::Result<()> {
        ports.iter().try_for_each(|port| self.activated.insert(port, &0))?;
        self.activated.keep_only(ports)
    }

    /// Tells the kernel from which address connections of a namespace to a prefix leave.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_source(
        &self,
        netns: u64,
        length: u32,
        to: Address,
        source: Address,
    ) -> io::Result<()> {
        let key = Prefix {
            bits: SOURCE_PREFIX_BITS + length,
            data: SourceKey { netns, destination: to },
        };
        self.sources.insert(&key, &source)
    }

    /// Forgets from which addresses connections of a namespace leave to all other prefixes than these, given by
    /// length and address.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn prune_sources(&self, netns: u64, wanted: &HashSet<(u32, Address)>) -> io::Result<()> {
        for key in self.sources.keys()?.into_iter().filter(|key| { key.data }.netns == netns) {
            let length = { key.bits } - SOURCE_PREFIX_BITS;
            if !wanted.contains(&(length, { key.data }.destination)) {
                self.sources.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Tells the kernel which addresses are a namespace's own.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn set_locals(&self, netns: u64, own: &HashSet<Address>) -> io::Result<()> {
        let before: HashSet<Address> = self.locals_of(netns)?.map(|key| key.address).collect();
        for address in own.difference(&before) {
            self.locals.insert(&LocalKey { netns, address: *address }, &0)?;
        }
        for address in before.difference(own) {
            self.locals.remove(&LocalKey { netns, address: *address })?;
        }
        Ok(())
    }

    fn locals_of(&self, netns: u64) -> io::Result<impl Iterator<Item = LocalKey> + use<>> {
        Ok(self.locals.keys()?.into_iter().filter(move |key| key.netns == netns))
    }

    /// Forgets everything about a namespace that is gone.
    ///
    /// # Errors
    /// If a map cannot be read or written.
    pub fn forget_namespace(&self, netns: u64) -> io::Result<()> {
        self.namespaces.remove(&netns)?;
        self.probes.owners.remove(&netns)?;
        for key in self.flows.keys()?.into_iter().filter(|key| key.netns == netns) {
            self.flows.remove(&key)?;
        }
        for key in self.steered.keys()?.into_iter().filter(|key| key.netns == netns) {
            self.steered.remove(&key)?;
        }
        for key in self.silent.keys()?.into_iter().filter(|key| key.netns == netns) {
            self.silent.remove(&key)?;
        }
        for key in self.sources.keys()?.into_iter().filter(|key| { key.data }.netns == netns) {
            self.sources.remove(&key)?;
        }
        for key in self.locals_of(netns)? {
            self.locals.remove(&key)?;
        }
        Ok(())
    }

    /// Forgets what belonged to an earlier agent's sockets. Only before the first listener is opened.
    ///
    /// # Errors
    /// If a map cannot be read or written.
    pub fn forget_connections(&self) -> io::Result<()> {
        self.flows.keep_only(&HashSet::new())?;
        self.unreachable.keep_only(&HashSet::new())?;
        self.silent.keep_only(&HashSet::new())?;
        self.clients.forget_others()?;
        self.wires.keep_only(&HashSet::new())
    }

    /// Forgets what a predecessor has left that is gone by now: whoever calls a workload from one of its ports must not be taken
    /// for the client that it has called for.
    ///
    /// # Errors
    /// If a map cannot be read or written.
    pub fn forget_predecessor(&self) -> io::Result<()> {
        self.clients.forget_others()
    }

    /// What the programs have counted.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counted(&self, counter: Counter) -> io::Result<u64> {
        self.counters.read(counter as u32)
    }
}
