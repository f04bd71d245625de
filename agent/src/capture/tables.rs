//! The maps that the agent and the BPF programs share, under their names in `ebpf/src/maps.rs`.

use std::collections::HashSet;
use std::hash::Hash;
use std::io;

use aya::Pod;
use sheath_common::counters::Counter;
use sheath_common::flow::{
    Flow, FlowKey, GuardedKey, LegKey, ListenerKey, SOURCE_PREFIX_BITS, SourceKey, SteeredKey,
};
use sheath_common::net::{Address, Endpoint};
use sheath_common::selector::{MAX_SELECTORS, Selector};
use sheath_common::verdict::{DESTINATION_PREFIX_BITS, Destination, DestinationKey};
use sheath_common::workload::Workload;

use super::Pins;
use crate::policy::{KernelRule, kernel_port, mapped_length};
use crate::sys::bpf::{PerCpuCounters, Prefix, SocketFd, Table};

/// Names of all maps that are pinned.
pub const PINNED: [&str; 14] = [
    "WORKLOADS",
    "SELECTORS",
    "DESTINATIONS",
    "NAMESPACES",
    "SOURCES",
    "REDIRECTS",
    "FLOWS",
    "CLIENTS",
    "WIRES",
    "LISTENERS",
    "STEERED",
    "GUARDED",
    "COUNTERS",
    "EVENTS",
];

/// A destination prefix as the trie holds it.
type DestinationPrefix = Prefix<DestinationKey>;

#[derive(Debug)]
pub struct Tables {
    pub workloads: Table<u64, Workload>,
    pub selectors: Table<u32, Selector>,
    destinations: Table<DestinationPrefix, Destination>,
    pub namespaces: Table<u64, u32>,
    pub sources: Table<Prefix<SourceKey>, Address>,
    pub flows: Table<FlowKey, Flow>,
    pub clients: Table<LegKey, Endpoint>,
    pub wires: Table<LegKey, u32>,
    pub listeners: Table<ListenerKey, SocketFd>,
    pub steered: Table<SteeredKey, u32>,
    guarded: Table<GuardedKey, u32>,
    counters: PerCpuCounters,
}

impl Tables {
    /// # Errors
    /// `InvalidData` if a map has another shape than this agent's.
    pub fn open(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            workloads: Table::open(&pins.map("WORKLOADS"))?,
            selectors: Table::open(&pins.map("SELECTORS"))?,
            destinations: Table::open(&pins.map("DESTINATIONS"))?,
            namespaces: Table::open(&pins.map("NAMESPACES"))?,
            sources: Table::open(&pins.map("SOURCES"))?,
            flows: Table::open(&pins.map("FLOWS"))?,
            clients: Table::open(&pins.map("CLIENTS"))?,
            wires: Table::open(&pins.map("WIRES"))?,
            listeners: Table::open(&pins.map("LISTENERS"))?,
            steered: Table::open(&pins.map("STEERED"))?,
            guarded: Table::open(&pins.map("GUARDED"))?,
            counters: PerCpuCounters::open(&pins.map("COUNTERS"))?,
        })
    }

    /// Replaces the rules about destinations. New ones are in force before old ones go, so that nothing that
    /// stays protected is ever unprotected.
    pub fn replace_rules(&self, rules: &[KernelRule]) -> io::Result<()> {
        let mut wanted = HashSet::new();
        for rule in rules {
            let length = u32::from(mapped_length(&rule.destination.prefix));
            let data = DestinationKey {
                scope: rule.scope,
                port: kernel_port(&rule.destination),
                address: rule.destination.prefix.addr().into(),
            };
            let bits = DESTINATION_PREFIX_BITS + length;
            self.destinations
                .insert(&Prefix { bits, data }, &Destination::new(rule.action, length))?;
            wanted.insert((bits, data));
        }
        for key in self.destinations.keys()? {
            if !wanted.contains(&({ key.bits }, { key.data })) {
                self.destinations.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Replaces the ports on which workloads must not answer the network themselves.
    pub fn replace_guarded(&self, wanted: HashSet<GuardedKey>) -> io::Result<()> {
        replace_keys(&self.guarded, wanted)
    }

    /// Replaces the selectors by which new cgroups are recognised.
    pub fn replace_selectors(&self, selectors: &[Selector]) -> io::Result<()> {
        for (index, selector) in selectors.iter().enumerate() {
            self.selectors.insert(&(index as u32), selector)?;
        }
        // One empty entry ends the list.
        if (selectors.len() as u32) < MAX_SELECTORS {
            self.selectors.insert(&(selectors.len() as u32), &Selector::NONE)?;
        }
        Ok(())
    }

    /// Tells the kernel from which address connections of a namespace to a prefix leave.
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

    /// Forgets everything about a namespace that is gone.
    pub fn forget_namespace(&self, netns: u64) -> io::Result<()> {
        self.namespaces.remove(&netns)?;
        for key in self.steered.keys()?.into_iter().filter(|key| key.netns == netns) {
            self.steered.remove(&key)?;
        }
        for key in self.sources.keys()?.into_iter().filter(|key| { key.data }.netns == netns) {
            self.sources.remove(&key)?;
        }
        Ok(())
    }

    /// Forgets what belonged to an earlier agent's sockets. Only before the first listener is opened.
    pub fn forget_connections(&self) -> io::Result<()> {
        replace_keys(&self.flows, HashSet::new())?;
        replace_keys(&self.clients, HashSet::new())?;
        replace_keys(&self.wires, HashSet::new())
    }

    /// Names and values of the kernel's counters.
    pub fn counters(&self) -> io::Result<Vec<(&'static str, u64)>> {
        Counter::ALL
            .into_iter()
            .map(|counter| Ok((counter.name(), self.counters.read(counter as u32)?)))
            .collect()
    }
}

/// Makes the keys of a map those that are wanted; missing ones get a default value. Additions come first.
pub fn replace_keys<K, V>(table: &Table<K, V>, wanted: HashSet<K>) -> io::Result<()>
where
    K: Pod + Eq + Hash,
    V: Pod + Default,
{
    for key in &wanted {
        table.insert(key, &V::default())?;
    }
    for key in table.keys()? {
        if !wanted.contains(&key) {
            table.remove(&key)?;
        }
    }
    Ok(())
}
