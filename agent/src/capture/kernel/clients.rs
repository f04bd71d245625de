//! The map of those whom applications see as their peers, on connections of the agent's.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sheath_common::flow::LegKey;
use sheath_common::net::Endpoint;

use crate::sys::bpf::Table;

/// The map, and which of its entries are of this agent's connections: a predecessor may have some as well.
#[derive(Debug)]
pub struct Clients {
    table: Table<LegKey, Endpoint>,
    own: Mutex<HashSet<LegKey>>,
    /// There may be some of a predecessor's.
    has_others: AtomicBool,
}

impl Clients {
    /// # Errors
    /// `InvalidData` if the map has another shape.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            table: Table::open(path)?,
            own: Mutex::default(),
            has_others: AtomicBool::default(),
        })
    }

    /// Leaves the entries of a predecessor to it, until [`Self::forget_others`].
    pub fn leave_others(&self) {
        self.has_others.store(true, Ordering::Relaxed);
    }

    /// Adds an entry for a connection of this agent's.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one, `StorageFull` if the map is full.
    pub fn insert_new(&self, key: &LegKey, client: &Endpoint) -> io::Result<()> {
        // First: what is not this agent's may be removed at any moment.
        if !self.own().insert(*key) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.table.insert_new(key, client).inspect_err(|_| {
            self.own().remove(key);
        })
    }

    /// Has an entry for a connection that is this agent's from now on: a predecessor has handed it over, and the entry is there
    /// unless somebody has removed it.
    ///
    /// # Errors
    /// `StorageFull` if the map is full.
    pub fn insert(&self, key: &LegKey, client: &Endpoint) -> io::Result<()> {
        self.own().insert(*key);
        self.table.insert(key, client)
    }

    /// Removes an entry of this agent's.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn remove(&self, key: &LegKey) -> io::Result<bool> {
        let removed = self.table.remove(key);
        self.own().remove(key);
        removed
    }

    /// Removes all entries that are not this agent's. Only when no other has connections any more.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn forget_others(&self) -> io::Result<()> {
        // Whatever is added from here on is this agent's.
        let present = self.table.keys()?;
        for key in present {
            let is_own = self.own().contains(&key);
            if !is_own {
                self.table.remove(&key)?;
            }
        }
        self.has_others.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Ports of the agents' connections to applications of a namespace in which this agent has none yet. The whole map is read, but only
    /// while there may be a predecessor's.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn ports_in(&self, netns: u64) -> io::Result<Vec<u32>> {
        if !self.has_others.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let entries = self.table.entries()?.into_iter();
        Ok(entries.filter(|(key, _)| key.netns == netns).map(|(key, _)| key.port).collect())
    }

    /// How many there are.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn count(&self) -> io::Result<usize> {
        Ok(self.table.keys()?.len())
    }

    fn own(&self) -> MutexGuard<'_, HashSet<LegKey>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
