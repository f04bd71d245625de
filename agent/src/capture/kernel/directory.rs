//! The kernel's part of the directory: who is at addresses of the cluster, and which ranges are the cluster's.

use std::collections::{HashMap, HashSet};
use std::io;

use ipnet::IpNet;
use sheath_common::net::Endpoint;
use sheath_common::verdict::{
    Action, DESTINATION_PREFIX_BITS, Destination, DestinationKey, Known, PORT_ANY, SCOPE_CLUSTER,
};

use super::pins::Pins;
use crate::directory::{Directory, KernelChange};
use crate::steering::mapped_length;
use crate::sys::bpf::{Prefix, Table};

/// Entries that are written at once, at most: so long is a thread kept.
const PIECE: usize = 1024;

/// The directory's maps.
#[derive(Debug)]
pub struct DirectoryMaps {
    entries: Table<Endpoint, Known>,
    /// Of these, the ranges of the cluster alone.
    prefixes: Table<Prefix<DestinationKey>, Destination>,
}

/// Entries to write, and to remove.
pub type Piece<'c> = (&'c [(Endpoint, Known)], &'c [Endpoint]);

/// One of the steps of a change: the pieces that it takes are written one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Before the directory is in force.
    Protect,
    /// When it is.
    Release,
}

impl DirectoryMaps {
    /// # Errors
    /// `InvalidData` if a map has another shape than this agent's.
    pub fn open(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            entries: Table::open(&pins.map("DIRECTORY"))?,
            prefixes: Table::open(&pins.map("PREFIXES"))?,
        })
    }

    /// Has the kernel begin with this directory. To be called before programs are attached.
    ///
    /// What an earlier agent has told the kernel stays, where this one will follow a directory: it is newer than what that agent has
    /// left in a file, and what is plain in there may be protected by now.
    ///
    /// # Errors
    /// If a map cannot be read or written, for want of room for instance.
    pub fn begin_with(&self, directory: &Directory) -> io::Result<()> {
        let is_followed = directory.position().is_some() || !directory.ranges().is_empty();
        self.add_ranges(directory.ranges())?;
        let change = self.difference(directory)?;
        self.forget_bypassed(directory)?;
        if !is_followed || self.count()? == 0 {
            for step in [Step::Protect, Step::Release] {
                Self::pieces(&change, step).into_iter().try_for_each(|piece| self.write(piece))?;
            }
        }
        if is_followed { Ok(()) } else { self.keep_ranges(&[]) }
    }

    /// What an earlier agent was told to bypass, this one may have been told not to.
    fn forget_bypassed(&self, directory: &Directory) -> io::Result<()> {
        let wanted = directory.addresses().flat_map(|address| directory.kernel_entries(address));
        let is_bypassed = |(key, known): (Endpoint, Known)| (known == Known::BYPASS).then_some(key);
        let wanted: HashSet<_> = wanted.filter_map(is_bypassed).collect();
        let present = self.entries.entries()?.into_iter().filter_map(is_bypassed);
        let stale: Vec<_> = present.filter(|key| !wanted.contains(key)).collect();
        self.entries.remove_all(&stale)
    }

    /// What has to change for the kernel to know this directory, whatever it knows now: an earlier agent has written it.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn difference(&self, directory: &Directory) -> io::Result<KernelChange> {
        let mut present: HashMap<Endpoint, Known> = self.entries.entries()?.into_iter().collect();
        let mut change = KernelChange::default();
        for address in directory.addresses() {
            let wanted = directory.kernel_entries(address);
            let known = |(key, _): &(Endpoint, Known)| Some((*key, present.remove(key)?));
            let before: Vec<_> = wanted.iter().filter_map(known).collect();
            change.add(&before, &wanted);
        }
        let stale: Vec<_> = present.into_iter().collect();
        change.add(&stale, &[]);
        Ok(change)
    }

    /// The pieces of a step, each of which [`Self::write`] writes at once.
    #[must_use]
    pub fn pieces(change: &KernelChange, step: Step) -> Vec<Piece<'_>> {
        let (put, gone) = match step {
            Step::Protect => (&change.protect, &change.unknown),
            Step::Release => (&change.release, &change.forget),
        };
        // What goes makes room for what comes, and leaves nobody alone who is not known.
        let gone = gone.chunks(PIECE).map(|piece| (&[][..], piece));
        gone.chain(put.chunks(PIECE).map(|piece| (piece, &[][..]))).collect()
    }

    /// # Errors
    /// `StorageFull` if there is no room.
    pub fn write(&self, (put, gone): Piece<'_>) -> io::Result<()> {
        self.entries.remove_all(gone)?;
        self.entries.insert_all(put)
    }

    /// Tells which ranges are the cluster's, beside those that were. To be called before the directory is in force.
    ///
    /// # Errors
    /// `StorageFull` if there is no room.
    pub fn add_ranges(&self, ranges: &[IpNet]) -> io::Result<()> {
        let entries: Vec<_> = ranges.iter().map(range).collect();
        self.prefixes.insert_all(&entries)
    }

    /// Forgets all others. To be called when the directory is in force.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn keep_ranges(&self, ranges: &[IpNet]) -> io::Result<()> {
        let key = |prefix: &Prefix<DestinationKey>| ({ prefix.bits }, { prefix.data });
        let wanted: HashSet<_> = ranges.iter().map(|net| key(&range(net).0)).collect();
        let present = self.prefixes.entries()?.into_iter().map(|(prefix, _)| prefix);
        let stale: Vec<_> = present
            .filter(
                |prefix| { prefix.data }.scope == SCOPE_CLUSTER && !wanted.contains(&key(prefix)),
            )
            .collect();
        self.prefixes.remove_all(&stale)
    }

    /// Entries in the kernel now.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn count(&self) -> io::Result<usize> {
        Ok(self.entries.entries()?.len())
    }
}

fn range(network: &IpNet) -> (Prefix<DestinationKey>, Destination) {
    let length = u32::from(mapped_length(network));
    let data = DestinationKey {
        scope: SCOPE_CLUSTER,
        port: PORT_ANY,
        address: network.trunc().addr().into(),
    };
    let prefix = Prefix { bits: DESTINATION_PREFIX_BITS + length, data };
    (prefix, Destination::new(Action::Protect, length))
}

#[cfg(test)]
mod tests;
