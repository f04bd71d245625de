//! The entries of cgroups in the kernel's map: which workload each cgroup is. One for which there is no room is refused, and not
//! taken for a cgroup outside of all workloads (`common/src/enrolment.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sheath_common::enrolment::{OVERFLOW_SEEN, OVERFLOW_SETTLED, Overflow};
use sheath_common::maps::MAX_WORKLOADS;
use sheath_common::workload::Workload;

use crate::capture::cgroups;
use crate::capture::kernel::maps::Maps;
use crate::capture::selectors::Selectors;

/// The kernel's records of cgroups.
#[derive(Debug)]
pub struct CgroupRecords {
    maps: Arc<Maps>,
    /// Where the cgroup v2 hierarchy is mounted.
    mount: PathBuf,
    /// Cgroups below which there may be workloads, and the agent's own, as far as they were there.
    marked: BTreeSet<u64>,
    unrecorded: Unrecorded,
}

/// What there was no room for since [`CgroupRecords::begin`].
#[derive(Clone, Copy, Debug, Default)]
struct Unrecorded {
    /// The oldest of the cgroups.
    since: Option<u64>,
    /// One of them was to be marked as one that workloads lie below.
    everywhere: bool,
}

/// Paths of cgroups that others lie below.
#[derive(Debug, Default)]
pub struct Bases {
    /// Workloads.
    pub of_workloads: BTreeSet<PathBuf>,
    /// Pods, directly.
    pub of_pods: BTreeSet<PathBuf>,
}

/// The cgroups of workloads and pods whose entries are to stay.
#[derive(Debug)]
pub struct Known {
    pub cgroups: BTreeSet<u64>,
    /// False if a workload could not be looked at: there may be others.
    pub is_complete: bool,
}

impl CgroupRecords {
    pub fn new(maps: Arc<Maps>, mount: PathBuf) -> Self {
        let (marked, unrecorded) = (BTreeSet::new(), Unrecorded::default());
        Self { maps, mount, marked, unrecorded }
    }

    /// Has the kernel recognise new cgroups by these patterns, and by no others.
    ///
    /// # Errors
    /// If the maps cannot be written.
    pub fn set_selectors(&self, selectors: &Selectors) -> io::Result<()> {
        self.maps.patterns.replace(selectors)
    }

    /// Before cgroups are looked at. Returns how many the kernel had seen until then that it could not record.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn begin(&mut self) -> io::Result<u64> {
        self.unrecorded = Unrecorded::default();
        Ok(self.maps.overflow.get(&OVERFLOW_SEEN)?.unwrap_or_default().count)
    }

    /// The entry of a cgroup.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn get(&self, cgroup: u64) -> io::Result<Option<Workload>> {
        self.maps.workloads.get(&cgroup)
    }

    /// Ids of all cgroups that have an entry.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn all(&self) -> io::Result<Vec<u64>> {
        self.maps.workloads.keys()
    }

    /// Records what a cgroup is.
    ///
    /// # Errors
    /// If there is no room. The kernel is told by [`Self::finish`].
    pub fn record(&mut self, cgroup: u64, entry: &Workload) -> io::Result<()> {
        match self.maps.workloads.insert(&cgroup, entry) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let since = &mut self.unrecorded.since;
                *since = Some(since.map_or(cgroup, |oldest| oldest.min(cgroup)));
                Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!(
                        "{MAX_WORKLOADS} cgroups are recorded, and there is no room for more; new ones below the same cgroups are refused"
                    ),
                ))
            }
            result => result,
        }
    }

    /// Removes the entry of a cgroup, if there is one.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn remove(&self, cgroup: u64) -> io::Result<()> {
        self.maps.workloads.remove(&cgroup).map(drop)
    }

    /// Removes all entries of `before` but those of workloads and of what is marked.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn prune(&self, before: &[u64], known: &Known) -> io::Result<()> {
        let is_current = |id: &u64| known.cgroups.contains(id) || self.marked.contains(id);
        before.iter().filter(|id| !is_current(id)).try_for_each(|id| self.remove(*id))
    }

    /// After all cgroups have been looked at: marks those that workloads and pods lie below (`bases`), and the agent's own. Tells
    /// the kernel that what it had `seen` before is recorded now, or what still is not.
    pub fn finish(&mut self, seen: io::Result<u64>, bases: &Bases, known: &Known) {
        let finished = self.mark_all(bases, known).and_then(|()| self.tell(seen?, known));
        if let Err(error) = finished {
            tracing::warn!(%error, "cgroups that could not be recorded stay refused");
        }
    }

    fn tell(&self, seen: u64, known: &Known) -> io::Result<()> {
        let before = self.maps.overflow.get(&OVERFLOW_SETTLED)?.unwrap_or_default();
        let now = self.unrecorded.overflow(before, seen, known.is_complete);
        if now == before {
            return Ok(());
        }
        self.maps.overflow.insert(&OVERFLOW_SETTLED, &now)
    }

    fn mark_all(&mut self, bases: &Bases, known: &Known) -> io::Result<()> {
        let own = cgroups::own()?;
        let of_pods = bases.of_pods.iter().map(|path| (path.as_path(), Workload::ABOVE_PODS));
        let others = bases.of_workloads.difference(&bases.of_pods);
        let mut marks: Vec<_> =
            others.map(|path| (path.as_path(), Workload::BASE)).chain(of_pods).collect();
        if own != Path::new("/") {
            marks.push((&own, Workload::AGENT));
        }
        let before = std::mem::take(&mut self.marked);
        let marked = marks.iter().try_for_each(|(path, mark)| self.mark(path, mark, known));
        if marked.is_err() {
            self.marked.extend(before);
        }
        marked
    }

    /// Records what a cgroup is, if it exists and is no workload.
    fn mark(&mut self, path: &Path, mark: &Workload, known: &Known) -> io::Result<()> {
        let Ok(metadata) = fs::metadata(cgroups::join(&self.mount, path)) else {
            return Ok(());
        };
        let id = metadata.ino();
        self.marked.insert(id);
        let may_be_workload = !known.is_complete || known.cgroups.contains(&id);
        match self.get(id)? {
            Some(entry) if entry == *mark || may_be_workload => Ok(()),
            _ => match self.record(id, mark) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.unrecorded.everywhere |= mark.is_base();
                    Ok(())
                }
                result => result,
            },
        }
    }
}

impl Unrecorded {
    /// What the kernel is told after `before`. `seen` is how many it had seen before cgroups were looked at; they are
    /// recorded now if everything could be looked at and there was room.
    fn overflow(self, before: Overflow, seen: u64, is_complete: bool) -> Overflow {
        match self.since {
            None if !is_complete => before,
            None => Overflow { count: seen, since: 0, everywhere: 0 },
            Some(since) => {
                Overflow { count: before.count, since, everywhere: u64::from(self.everywhere) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_saw_is_refused_until_all_of_it_is_recorded() {
        let before = Overflow { count: 3, since: 40, everywhere: 1 };
        let none = Unrecorded::default();
        let recorded = Overflow { count: 5, since: 0, everywhere: 0 };
        assert_eq!(none.overflow(before, 5, true), recorded);
        assert_eq!(none.overflow(before, 5, false), before, "something was not looked at");
        let some = Unrecorded { since: Some(50), everywhere: false };
        let still = Overflow { count: 3, since: 50, everywhere: 0 };
        for is_complete in [true, false] {
            assert_eq!(some.overflow(before, 5, is_complete), still);
        }
        let everywhere = Unrecorded { everywhere: true, ..some };
        assert_eq!(everywhere.overflow(before, 5, true).everywhere, 1);
    }
}
