//! The kernel's maps of what new cgroups are recognised by.

use std::io;

use sheath_common::selector::{BeginningKey, Pattern, PatternKey};

use super::pins::Pins;
use crate::capture::selectors::Selectors;
use crate::sys::bpf::{Prefix, Table};

#[derive(Debug)]
pub struct PatternMaps {
    patterns: Table<PatternKey, Pattern>,
    beginnings: Table<Prefix<BeginningKey>, u32>,
    generation: Table<u32, u32>,
}

impl PatternMaps {
    /// # Errors
    /// `InvalidData` if a map has another shape than this agent's.
    pub fn open(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            patterns: Table::open(&pins.map("PATTERNS"))?,
            beginnings: Table::open(&pins.map("BEGINNINGS"))?,
            generation: Table::open(&pins.map("GENERATION"))?,
        })
    }

    /// Replaces the patterns by which new cgroups are recognised. There is no moment at which one that is wanted is missing:
    /// the new ones are all there before they take the place of the old ones in one step, and whoever has begun with the
    /// old ones sees by the generation that they may have gone meanwhile.
    ///
    /// # Errors
    /// If the maps cannot be written; then the old ones are in force as before.
    pub fn replace(&self, selectors: &Selectors) -> io::Result<()> {
        let now = self.generation.get(&0)?.unwrap_or_default();
        // What an agent has left that was stopped halfway.
        self.keep_only(now)?;
        let next = now.wrapping_add(1);
        let (patterns, beginnings) = selectors.entries(next);
        let written = self
            .patterns
            .insert_all(&patterns)
            .and_then(|()| self.beginnings.insert_all(&beginnings));
        let in_force = written.and_then(|()| self.generation.insert(&0, &next));
        let kept = if in_force.is_ok() { next } else { now };
        let tidied = self.keep_only(kept);
        in_force.and(tidied)
    }

    fn keep_only(&self, generation: u32) -> io::Result<()> {
        let beginnings = self.beginnings.entries()?.into_iter().map(|(prefix, _)| prefix);
        let stale: Vec<_> =
            beginnings.filter(|prefix| { prefix.data }.generation != generation).collect();
        self.beginnings.remove_all(&stale)?;
        let patterns = self.patterns.entries()?.into_iter().map(|(key, _)| key);
        let stale: Vec<_> = patterns.filter(|key| key.generation != generation).collect();
        self.patterns.remove_all(&stale)
    }
}
