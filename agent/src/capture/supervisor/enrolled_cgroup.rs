//! A cgroup that the kernel knows as a workload's, and where its processes have been seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::capture::filters::Blocked;

/// A workload's processes have left a namespace for good when none has been seen there for this time.
pub const LINGER: Duration = Duration::from_secs(10);
/// Service managers and container runtimes start a process in their own namespace and move it on at once: a process
/// that is in a namespace for less than this only passes through.
pub const STAY: Duration = Duration::from_millis(100);

/// One of a workload's cgroups.
#[derive(Debug)]
pub struct EnrolledCgroup {
    path: PathBuf,
    /// By inode number of the namespace.
    sightings: BTreeMap<u64, Sighting>,
    /// What other people's packet filters keep from the agent.
    blocked: Option<Blocked>,
    /// Connections older than the enrolment have yet to be reset.
    must_reset: bool,
}

/// When processes were seen in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    first: Instant,
    last: Instant,
}

impl Sighting {
    /// True if processes have stayed, and did not only pass through.
    pub fn has_stayed(&self) -> bool {
        self.last - self.first >= STAY
    }

    /// True if none has been seen for this time.
    pub fn is_older_than(&self, time: Duration) -> bool {
        self.last.elapsed() >= time
    }
}

impl EnrolledCgroup {
    pub fn new(path: PathBuf, must_reset: bool) -> Self {
        Self { path, sightings: BTreeMap::new(), blocked: None, must_reset }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes where processes are now, and forgets where none has been for a while. `since` is when they are taken to
    /// have come to a namespace that is new.
    pub fn sight(&mut self, namespaces: &BTreeSet<u64>, since: Instant) {
        let now = Instant::now();
        for inode in namespaces {
            let sighting = Sighting { first: since, last: now };
            self.sightings.entry(*inode).or_insert(sighting).last = now;
        }
        self.sightings.retain(|_, sighting| now - sighting.last <= LINGER);
    }

    /// Namespaces in which its processes have been seen, by inode number.
    pub fn sightings(&self) -> impl Iterator<Item = (u64, Sighting)> {
        self.sightings.iter().map(|(inode, sighting)| (*inode, *sighting))
    }

    /// When its processes were seen in a namespace.
    pub fn sighting(&self, inode: u64) -> Option<Sighting> {
        self.sightings.get(&inode).copied()
    }

    pub fn blocked(&self) -> Option<&Blocked> {
        self.blocked.as_ref()
    }

    pub fn set_blocked(&mut self, blocked: Option<Blocked>) {
        self.blocked = blocked;
    }

    /// True while connections older than the enrolment have yet to be reset.
    pub fn must_reset(&self) -> bool {
        self.must_reset
    }

    pub fn set_must_reset(&mut self, must_reset: bool) {
        self.must_reset = must_reset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen_since(before_now: Duration) -> EnrolledCgroup {
        let mut cgroup = EnrolledCgroup::new("/web".into(), false);
        cgroup.sight(&BTreeSet::from([7]), Instant::now() - before_now);
        cgroup
    }

    #[test]
    fn who_has_just_come_may_be_passing_through() {
        assert!(!seen_since(Duration::ZERO).sighting(7).unwrap().has_stayed());
        assert!(seen_since(STAY).sighting(7).unwrap().has_stayed());
    }

    #[test]
    fn a_later_sighting_does_not_change_when_the_first_was() {
        let mut cgroup = seen_since(STAY);
        cgroup.sight(&BTreeSet::from([7]), Instant::now());
        assert!(cgroup.sighting(7).unwrap().has_stayed());
        assert!(cgroup.sighting(8).is_none());
    }
}
