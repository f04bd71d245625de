//! Assigns numbers to names. It knows nothing of the kernel's map.

use std::collections::{HashMap, HashSet};

use sheath_common::workload::{FIRST_ID, LAST_ID, WorkloadId};

/// What is wrong with a table that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("as it does not say which number comes next")]
    Next,
    #[error("as it has a name that is not UTF-8")]
    Name,
    #[error("as it has the number {0}, which was never given out")]
    Id(u64),
    #[error("as two names have the number {0}")]
    Twice(WorkloadId),
}

/// No number is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no workload id is left")]
pub struct Exhausted;

/// Numbers by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Given out next; all lower ones have been.
    next: WorkloadId,
    ids: HashMap<String, WorkloadId>,
}

/// The numbers of some names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// In the order of the names.
    pub ids: Vec<WorkloadId>,
    /// The names that had no number, with their new ones.
    pub new: Vec<(String, WorkloadId)>,
}

impl Default for Allocation {
    fn default() -> Self {
        Self { next: FIRST_ID, ids: HashMap::new() }
    }
}

impl Allocation {
    /// Restores what was written down.
    ///
    /// # Errors
    /// If that cannot have come from here.
    pub fn restore(
        next: Option<u64>,
        entries: impl IntoIterator<Item = (String, u64)>,
    ) -> Result<Self, Damage> {
        let next = next.and_then(|next| WorkloadId::try_from(next).ok()).ok_or(Damage::Next)?;
        if !(FIRST_ID..=LAST_ID + 1).contains(&next) {
            return Err(Damage::Next);
        }
        let mut ids = HashMap::new();
        let mut seen = HashSet::new();
        for (name, id) in entries {
            let known = WorkloadId::try_from(id).ok().filter(|id| (FIRST_ID..next).contains(id));
            let id = known.ok_or(Damage::Id(id))?;
            if !seen.insert(id) || ids.insert(name, id).is_some() {
                return Err(Damage::Twice(id));
            }
        }
        Ok(Self { next, ids })
    }

    /// The number that is given out next.
    #[must_use]
    pub fn next(&self) -> WorkloadId {
        self.next
    }

    /// How many names have a number.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// Gives each of these names its number, or a new one.
    ///
    /// # Errors
    /// If there are not enough numbers left; then nothing is given out.
    pub fn assign(&mut self, names: &[&str]) -> Result<Assigned, Exhausted> {
        let mut seen = HashSet::new();
        let new = names.iter().copied().filter(|name| !self.ids.contains_key(*name));
        let new: Vec<_> = new.filter(|name| seen.insert(*name)).collect();
        let left = LAST_ID + 1 - self.next;
        if new.len() > left as usize {
            return Err(Exhausted);
        }
        let numbered = (self.next..).zip(new).map(|(id, name)| (name.to_owned(), id));
        let new: Vec<_> = numbered.collect();
        self.next += new.len() as WorkloadId;
        self.ids.extend(new.iter().cloned());
        Ok(Assigned { ids: names.iter().map(|name| self.ids[*name]).collect(), new })
    }

    /// Forgets all names but these. Returns those that had a number.
    pub fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        self.ids.extract_if(|name, _| !is_wanted(name)).map(|(name, _)| name).collect()
    }

    /// Takes names back that have been forgotten while somebody used their numbers. Returns those that were.
    pub fn take_back(&mut self, names: &HashMap<&str, WorkloadId>) -> Vec<(String, WorkloadId)> {
        let used: HashSet<_> = self.ids.values().copied().collect();
        let is_lost = |(name, id): &(&&str, &WorkloadId)| {
            let was_given_out = (FIRST_ID..self.next).contains(*id) && !used.contains(*id);
            was_given_out && !self.ids.contains_key(**name)
        };
        let lost = names.iter().filter(is_lost).map(|(name, id)| ((*name).to_owned(), *id));
        let lost: Vec<_> = lost.collect();
        self.ids.extend(lost.iter().cloned());
        lost
    }
}

#[cfg(test)]
mod tests;
