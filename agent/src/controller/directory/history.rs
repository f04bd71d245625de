//! The directory's changes, numbered: those that are not too long ago, and all of it as it was at one of them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cluster::Changes;
use super::encoded::{self, Shared};
use crate::controller_api::directory::Position;

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of changes.
    pub bytes: usize,
    /// Number of changes.
    pub changes: usize,
}

impl Default for Limits {
    /// Some 80 000 changes of single pods: minutes of the busiest cluster.
    fn default() -> Self {
        Self { bytes: 8 << 20, changes: 100_000 }
    }
}

/// The changes that are kept.
#[derive(Debug)]
pub struct History {
    limits: Limits,
    /// That of the last change.
    position: Position,
    changes: VecDeque<Shared>,
    bytes: usize,
}

impl History {
    /// Begins an epoch.
    #[must_use]
    pub fn begin(epoch: u64, limits: Limits) -> Self {
        let position = Position { epoch, sequence: 0 };
        Self { limits, position, changes: VecDeque::new(), bytes: 0 }
    }

    /// That of the last change.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Adds changes, and forgets the oldest.
    pub fn add(&mut self, changes: &Changes) {
        for (sequence, delta) in encoded::deltas(self.position, changes) {
            self.bytes += encoded::length(&delta);
            self.changes.push_back(delta);
            self.position.sequence = sequence;
        }
        let Limits { bytes, changes } = self.limits;
        while self.bytes > bytes || self.changes.len() > changes {
            match self.changes.pop_front() {
                Some(oldest) => self.bytes -= encoded::length(&oldest),
                None => return,
            }
        }
    }

    /// The change that follows on a position. `None` if there is none yet.
    ///
    /// # Errors
    /// If it is not known any more, or never was.
    pub fn after(&self, known: Position) -> Result<Option<Shared>, Forgotten> {
        let Position { epoch, sequence } = self.position;
        let behind = sequence.checked_sub(known.sequence).filter(|_| known.epoch == epoch);
        let behind = behind.and_then(|behind| usize::try_from(behind).ok()).ok_or(Forgotten)?;
        let at = self.changes.len().checked_sub(behind).ok_or(Forgotten)?;
        Ok(self.changes.get(at).cloned())
    }

    /// Bytes of the changes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What follows on a position is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten;

/// All of the directory, at one position.
#[derive(Debug)]
pub struct Snapshot {
    pub position: Position,
    pub pages: Arc<[Shared]>,
}
