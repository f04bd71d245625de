//! What has been seen of a workload.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sheath_common::workload::Workload;

use crate::capture::kernel::filters::Dropped;
use crate::config::{Existing, WorkloadConfig};

/// A workload's processes have left a namespace for good when none has been seen there for so long.
pub const LINGER: Duration = Duration::from_secs(10);
/// Service managers and container runtimes start a process in their own namespace and move it on at once: who
/// is there for less than this is passing through.
pub const SETTLED: Duration = Duration::from_millis(100);

/// A workload, and what there is of it.
#[derive(Debug)]
pub struct Observed {
    pub config: WorkloadConfig,
    /// By cgroup id.
    pub cgroups: BTreeMap<u64, Enrolled>,
    /// Cgroups that are refused because of their long paths.
    pub too_long: BTreeSet<u64>,
    pub processes: BTreeSet<u32>,
    /// Other workloads may lie below its cgroups.
    pub is_above_others: bool,
    /// Namespaces it was in when last looked at, by inode number.
    pub present_in: BTreeSet<u64>,
    /// Those of its own that it has been at home in, and may come back to.
    pub homes: BTreeSet<u64>,
    /// It was last seen in a namespace of its own, and not in the agent's.
    pub lives_elsewhere: bool,
    /// Addresses at which it was last seen to listen on a declared port, by namespace.
    pub heard: BTreeMap<(u64, u16), BTreeSet<IpAddr>>,
    /// Why it is not served as configured.
    pub problem: Option<String>,
    /// What else there is to know about who listens on its ports.
    pub notes: Vec<String>,
    /// Those that are in the log already.
    pub noted: Vec<String>,
    /// True if it could not be looked at the last time.
    pub is_unseen: bool,
}

/// A cgroup that the kernel knows as the workload's.
#[derive(Debug)]
pub struct Enrolled {
    pub path: PathBuf,
    /// Namespaces its processes have been seen in, by inode number.
    pub namespaces: BTreeMap<u64, Sighting>,
    /// What others' packet filters keep from the agent.
    pub dropped: Option<Dropped>,
    /// Connections older than the enrolment have yet to be reset.
    pub reset_pending: bool,
}

/// When processes were seen in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    first: Instant,
    last: Instant,
}

impl Sighting {
    /// True for a namespace that processes have stayed in, not only passed through.
    pub fn is_settled(&self) -> bool {
        self.last - self.first >= SETTLED
    }

    pub fn is_older_than(&self, time: Duration) -> bool {
        self.last.elapsed() >= time
    }
}

impl Enrolled {
    pub fn new(path: PathBuf, reset_pending: bool) -> Self {
        Self { path, namespaces: BTreeMap::new(), dropped: None, reset_pending }
    }

    /// Notes where processes are now, and forgets where none has been for a while. `since` is when they may be
    /// taken to have come to a namespace that is new.
    pub fn sight(&mut self, namespaces: &BTreeSet<u64>, since: Instant) {
        let now = Instant::now();
        for inode in namespaces {
            let sighting = Sighting { first: since, last: now };
            self.namespaces.entry(*inode).or_insert(sighting).last = now;
        }
        self.namespaces.retain(|_, sighting| now - sighting.last <= LINGER);
    }

    /// Namespaces in which nobody has been seen for so long.
    pub fn left_for(&self, time: Duration) -> impl Iterator<Item = u64> {
        let left =
            |(inode, sighting): (&u64, &Sighting)| sighting.is_older_than(time).then_some(*inode);
        self.namespaces.iter().filter_map(left).collect::<Vec<_>>().into_iter()
    }
}

impl Observed {
    pub fn new(config: WorkloadConfig) -> Self {
        Self {
            config,
            cgroups: BTreeMap::new(),
            too_long: BTreeSet::new(),
            processes: BTreeSet::new(),
            is_above_others: false,
            present_in: BTreeSet::new(),
            homes: BTreeSet::new(),
            lives_elsewhere: false,
            heard: BTreeMap::new(),
            problem: None,
            notes: Vec::new(),
            noted: Vec::new(),
            is_unseen: false,
        }
    }

    /// What the kernel has to know of one of its cgroups.
    pub fn entry(&self, dropped: Option<&Dropped>) -> Workload {
        let view = self.config.kernel_view();
        let view = if self.is_above_others { view.above_others() } else { view };
        dropped.map_or(view, |dropped| dropped.mark(view))
    }

    /// The same workload with another configuration. Connections that were not protected before are older than
    /// the protection.
    pub fn reconfigured(mut self, config: WorkloadConfig) -> Self {
        if config.existing == Existing::Reset && config.kernel_view() != self.config.kernel_view() {
            for enrolled in self.cgroups.values_mut() {
                enrolled.reset_pending = true;
            }
        }
        Self { config, ..self }
    }

    /// Namespaces that its processes have been seen in, by inode number.
    pub fn namespaces(&self) -> BTreeSet<u64> {
        self.cgroups.values().flat_map(|enrolled| enrolled.namespaces.keys().copied()).collect()
    }

    /// True if processes have stayed in a namespace.
    pub fn is_settled_in(&self, inode: u64) -> bool {
        self.cgroups
            .values()
            .filter_map(|enrolled| enrolled.namespaces.get(&inode))
            .any(Sighting::is_settled)
    }

    /// True if processes were seen just now in a namespace that they may be passing through.
    pub fn has_just_come(&self) -> bool {
        self.cgroups
            .values()
            .flat_map(|enrolled| enrolled.namespaces.values())
            .any(|sighting| !sighting.is_settled() && !sighting.is_older_than(SETTLED))
    }

    /// True if it does not only pass through a namespace: processes have stayed there, or it has listened there.
    pub fn is_at_home_in(&self, inode: u64) -> bool {
        self.is_settled_in(inode) || self.heard.keys().any(|(heard_in, _)| *heard_in == inode)
    }

    /// Notes where it is now, and returns the namespaces that it has left. `own` is the agent's.
    pub fn see_where(&mut self, own: u64) -> Vec<u64> {
        let present = self.namespaces();
        if self.is_at_home_in(own) {
            self.lives_elsewhere = false;
        } else if present.iter().any(|inode| *inode != own && self.is_at_home_in(*inode)) {
            self.lives_elsewhere = true;
        }
        let left = self.present_in.difference(&present).copied().collect();
        self.present_in = present;
        left
    }

    pub fn set_problem(&mut self, problem: Option<String>) {
        if let Some(reason) = &problem
            && self.problem.as_ref() != Some(reason)
        {
            tracing::warn!(workload = self.config.name, %reason, "workload not served as configured");
        }
        self.problem = problem;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolled_since(before_now: Duration) -> Enrolled {
        let mut enrolled = Enrolled::new("/web".into(), false);
        enrolled.sight(&BTreeSet::from([7]), Instant::now() - before_now);
        enrolled
    }

    #[test]
    fn who_has_just_come_may_be_passing_through() {
        assert!(!enrolled_since(Duration::ZERO).namespaces[&7].is_settled());
        assert!(enrolled_since(SETTLED).namespaces[&7].is_settled());
    }

    #[test]
    fn a_later_sighting_does_not_change_when_the_first_was() {
        let mut enrolled = enrolled_since(SETTLED);
        enrolled.sight(&BTreeSet::from([7]), Instant::now());
        assert!(enrolled.namespaces[&7].is_settled());
    }
}
