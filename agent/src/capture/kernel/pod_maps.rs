//! The kernel's maps of what was decided about pods, and how pods are recognised.

use std::collections::HashMap;
use std::io;

use sheath_common::pod_cgroups::{PodRules, rules_of};
use sheath_common::pod_uid::PodUid;
use sheath_common::workload::Workload;

use super::pins::Pins;
use crate::sys::bpf::Table;

#[derive(Debug)]
pub struct PodMaps {
    decisions: Table<PodUid, Workload>,
    rules: Table<u32, PodRules>,
    generation: Table<u32, u32>,
}

impl PodMaps {
    /// # Errors
    /// `InvalidData` if a map has another shape than this agent's.
    pub fn open(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            decisions: Table::open(&pins.map("PODS"))?,
            rules: Table::open(&pins.map("POD_RULES"))?,
            generation: Table::open(&pins.map("POD_GENERATION"))?,
        })
    }

    /// Puts rules in force, in one step: they are written where nobody reads, and then the generation is changed. A program that
    /// has begun with the rules before sees that and begins again.
    ///
    /// # Errors
    /// If a map cannot be read or written; then the rules before are in force.
    pub fn set_rules(&self, rules: &PodRules) -> io::Result<()> {
        let now = self.generation.get(&0)?.unwrap_or_default();
        if self.rules.get(&rules_of(now))? == Some(*rules) {
            return Ok(());
        }
        let next = now.wrapping_add(1);
        self.rules.insert(&rules_of(next), rules)?;
        self.generation.insert(&0, &next)
    }

    /// All that was decided.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn decisions(&self) -> io::Result<HashMap<PodUid, Workload>> {
        Ok(self.decisions.entries()?.into_iter().collect())
    }

    /// Tells what a pod is, whether its cgroup is there or not. [`Workload::NOBODY`] is a pod that is left alone.
    ///
    /// # Errors
    /// `StorageFull` if there is no room.
    pub fn decide(&self, pod: &PodUid, decision: &Workload) -> io::Result<()> {
        self.decisions.insert(pod, decision)
    }

    /// From now on nobody has decided about a pod.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn forget(&self, pod: &PodUid) -> io::Result<()> {
        self.decisions.remove(pod).map(drop)
    }
}
