//! The numbers by which the kernel knows workloads. Each name gets its own number. The table of numbers is a pinned map of the
//! instance, beside the maps that use the numbers, so the next agent finds it. A number is given out once: an entry or a socket
//! with the number of a workload that is gone never comes to mean another workload.

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io;
use std::thread;
use std::time::Duration;

use sheath_common::selector::MAX_SELECTED;
use sheath_common::workload::{MAX_NAME, WorkloadId};

use super::maps::WORKLOAD_IDS;
use super::pins::Pins;
use crate::capture::allocation::{Allocation, Assigned, Damage};
use crate::capture::error::IdError;
use crate::sys::bpf::Table;

/// Names that are written down: those of two configurations, as one follows the other, and the next number.
const ROOM: u32 = 2 * MAX_SELECTED + 1;

/// A name, with zeros behind it. All zeros stand for the number that is given out next.
type Name = [u8; MAX_NAME];
const NEXT: Name = [0; MAX_NAME];

/// The table of an instance.
#[derive(Debug)]
pub struct WorkloadIds {
    table: Table<Name, u64>,
    pins: Pins,
}

impl WorkloadIds {
    /// Opens the table. Makes it if there is nothing yet that could bear a number.
    ///
    /// # Errors
    /// If it is not there though other maps are, or makes no sense.
    pub fn open(pins: &Pins) -> Result<Self, IdError> {
        let path = pins.map(WORKLOAD_IDS);
        let _turn = take_turn(pins).map_err(IdError::during("cannot be locked"))?;
        let table = match Table::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if pins.map("WORKLOADS").exists() {
                    return Err(IdError::Lost);
                }
                let next = u64::from(Allocation::default().next());
                Table::create(&path, ROOM, &[(NEXT, next)])
            }
            table => table,
        };
        let ids =
            Self { table: table.map_err(IdError::during("cannot be opened"))?, pins: pins.clone() };
        ids.read()?;
        Ok(ids)
    }

    /// The numbers of workloads, in the order of their names: those that they have, or new ones.
    ///
    /// # Errors
    /// If the table cannot be read or written; what has been given out by then is not given out again.
    pub fn assign<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Vec<WorkloadId>, IdError> {
        let names: Vec<_> = names.into_iter().collect();
        let _turn = take_turn(&self.pins).map_err(IdError::during("cannot be locked"))?;
        let mut allocation = self.read()?;
        let before = allocation.count();
        let Assigned { ids, new } = allocation.assign(&names)?;
        if new.is_empty() {
            return Ok(ids);
        }
        // A name that has no room is no workload any more, or never was one. Its number is not given out again.
        if before + new.len() >= ROOM as usize {
            let wanted: HashSet<_> = names.iter().copied().collect();
            self.forget(allocation.retain(|name| wanted.contains(name)))?;
        }
        // First of all, so that nobody gets these numbers again, should the agent be stopped before it has written the rest.
        let next = u64::from(allocation.next());
        self.table.insert(&NEXT, &next).map_err(IdError::during("cannot be written"))?;
        self.write(&new)?;
        Ok(ids)
    }

    /// Keeps the names that are in force, with their numbers, and forgets all others. Those of the others are not given out
    /// again.
    ///
    /// # Errors
    /// If the table cannot be read or written.
    pub fn keep_only(&self, in_force: &HashMap<&str, WorkloadId>) -> Result<(), IdError> {
        let _turn = take_turn(&self.pins).map_err(IdError::during("cannot be locked"))?;
        let mut allocation = self.read()?;
        self.forget(allocation.retain(|name| in_force.contains_key(name)))?;
        self.write(&allocation.take_back(in_force))
    }

    fn write(&self, names: &[(String, WorkloadId)]) -> Result<(), IdError> {
        let entry = |(name, id): &(String, WorkloadId)| Ok((key(name)?, u64::from(*id)));
        let entries: Vec<_> = names.iter().map(entry).collect::<Result<_, IdError>>()?;
        self.table.insert_all(&entries).map_err(IdError::during("cannot be written"))
    }

    fn forget(&self, names: Vec<String>) -> Result<(), IdError> {
        let keys: Vec<_> = names.iter().map(|name| key(name)).collect::<Result<_, _>>()?;
        self.table.remove_all(&keys).map_err(IdError::during("cannot be written"))
    }

    fn read(&self) -> Result<Allocation, IdError> {
        let entries = self.table.entries().map_err(IdError::during("cannot be read"))?;
        let (mut next, mut ids) = (None, Vec::new());
        for (key, value) in entries {
            if key == NEXT {
                next = Some(value);
            } else {
                let end = key.iter().position(|byte| *byte == 0).unwrap_or(MAX_NAME);
                let name = str::from_utf8(&key[..end]).map_err(|_| Damage::Name)?;
                ids.push((name.to_owned(), value));
            }
        }
        Ok(Allocation::restore(next, ids)?)
    }
}

fn key(name: &str) -> Result<Name, IdError> {
    let mut key = NEXT;
    let room = key.get_mut(..name.len()).ok_or_else(|| IdError::LongName(name.to_owned()))?;
    room.copy_from_slice(name.as_bytes());
    Ok(key)
}

/// Two agents of one instance in different run directories may be here at once. The lock goes with its holder, however that
/// ends; only root can take it.
fn take_turn(pins: &Pins) -> io::Result<File> {
    const TRIES: u32 = 500;
    const PAUSE: Duration = Duration::from_millis(10);
    let directory = File::open(pins.directory())?;
    for _ in 0..TRIES {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "somebody else holds the pin directory locked"))
}

#[cfg(test)]
mod tests;
