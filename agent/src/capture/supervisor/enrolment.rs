//! What the kernel is told of cgroups besides whose they are, so that one that cannot be recorded as a workload is
//! refused and not taken for nobody's (`common/src/enrolment.rs`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sheath_common::enrolment::{OVERFLOW_SEEN, OVERFLOW_SETTLED, Overflow};
use sheath_common::maps::MAX_WORKLOADS;
use sheath_common::selector::{Selector, base};
use sheath_common::workload::{InboundMode, Workload};

use super::Supervisor;
use super::observed::Observed;
use crate::capture::cgroups::{self, WorkloadCgroup};
use crate::capture::kernel::filters::{self, Dropped};

/// What the last look has found that is no workload, and what it could not record.
#[derive(Debug, Default)]
pub struct Unenrolled {
    /// Cgroups below which there may be workloads, and the agent's own.
    marked: BTreeSet<u64>,
    /// The oldest cgroup that there was no room for.
    since: Option<u64>,
    /// One of them was to be marked.
    everywhere: bool,
}

/// What the kernel recognises new cgroups by: workloads first, then what they lie below. Notes which of them lie below others.
pub fn selectors(workloads: &mut [Observed]) -> Vec<Selector> {
    let bases: BTreeSet<_> = bases(workloads).into_iter().map(str::to_owned).collect();
    for workload in &mut *workloads {
        let is_above = |path: &String| cgroups::selects(&workload.config, Path::new(path));
        workload.is_above_others = bases.iter().any(is_above);
    }
    let of_base = |path: &String| Selector::new(path.as_bytes(), Workload::BASE);
    let of_bases = bases.iter().filter(|path| !path.is_empty()).filter_map(of_base);
    let of_workload = |workload: &Observed| Selector {
        workload: workload.entry(None),
        ..workload.config.selector()
    };
    workloads.iter().map(of_workload).chain(of_bases).collect()
}

fn bases(workloads: &[Observed]) -> BTreeSet<&str> {
    workloads.iter().map(|workload| base(&workload.config.cgroup)).collect()
}

impl Supervisor {
    /// Before cgroups are looked at. Returns what the kernel had seen until then that it could not record.
    pub(super) fn begin_enrolment(&mut self) -> io::Result<u64> {
        self.unenrolled.since = None;
        self.unenrolled.everywhere = false;
        Ok(self.tables.overflow.get(&OVERFLOW_SEEN)?.unwrap_or_default().count)
    }

    /// Marks what workloads lie below, and the agent's own cgroup.
    fn mark_all(&mut self) -> io::Result<()> {
        let own = cgroups::own()?;
        let mut marks: Vec<_> = bases(&self.workloads)
            .into_iter()
            .map(|path| (PathBuf::from(path), Workload::BASE))
            .collect();
        if own != Path::new("/") {
            marks.push((own, Workload::AGENT));
        }
        let before = std::mem::take(&mut self.unenrolled.marked);
        let marked = marks.iter().try_for_each(|(path, mark)| self.mark(path, mark));
        if marked.is_err() {
            self.unenrolled.marked.extend(before);
        }
        marked
    }

    /// Has a cgroup, if it is there, stand in the map for what it is, unless it is a workload.
    fn mark(&mut self, path: &Path, mark: &Workload) -> io::Result<()> {
        let Ok(metadata) = fs::metadata(cgroups::join(&self.mount, path)) else {
            return Ok(());
        };
        let id = metadata.ino();
        self.unenrolled.marked.insert(id);
        let is_workload = |workload: &Observed| {
            workload.is_unseen
                || workload.cgroups.contains_key(&id)
                || workload.too_long.contains(&id)
        };
        match self.tables.workloads.get(&id)? {
            Some(entry) if entry == *mark || self.workloads.iter().any(is_workload) => Ok(()),
            _ => match self.record(id, mark) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.unenrolled.everywhere |= mark.is_base();
                    Ok(())
                }
                result => result,
            },
        }
    }

    /// # Errors
    /// If there is no room. The kernel is told once everything has been looked at.
    pub(super) fn record(&mut self, cgroup: u64, entry: &Workload) -> io::Result<()> {
        match self.tables.workloads.insert(&cgroup, entry) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let since = &mut self.unenrolled.since;
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

    /// What others' packet filters keep a workload's processes in a cgroup from telling the agent.
    pub(super) fn dropped_of(
        &self,
        index: usize,
        cgroup: &WorkloadCgroup,
        namespaces: &BTreeSet<u64>,
    ) -> io::Result<Option<Dropped>> {
        let directory = match File::open(cgroups::join(&self.mount, &cgroup.path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            directory => directory?,
        };
        let mut own = Vec::new();
        if self.workloads[index].config.inbound.mode != InboundMode::Disabled {
            for served in namespaces.iter().filter_map(|inode| self.namespaces.get(inode)) {
                own.extend(served.namespace.netns().run(filters::own_addresses)?);
            }
        }
        filters::dropped(&directory, &own)
    }

    /// Why connections of a cgroup do not get to the agent, if so.
    pub(super) fn cut_off(&self, index: usize, cgroup: u64) -> Option<String> {
        let dropped = self.workloads[index].cgroups.get(&cgroup)?.dropped.as_ref()?;
        Some(format!("{dropped}; {}", dropped.advice()))
    }

    /// Refuses cgroups whose paths are too long to tell whose they are. Returns what to say of them.
    pub(super) fn refuse_too_long(
        &mut self,
        index: usize,
        too_long: Vec<WorkloadCgroup>,
    ) -> io::Result<Option<String>> {
        let problem = too_long.first().map(|cgroup| {
            format!(
                "connections of {} cgroup(s) are refused because of paths longer than {} bytes: {}",
                too_long.len(),
                sheath_common::selector::MAX_PATH,
                cgroups::shown(&cgroup.path)
            )
        });
        let ids: BTreeSet<u64> = too_long.iter().map(|cgroup| cgroup.id).collect();
        self.workloads[index].too_long.clone_from(&ids);
        for id in ids {
            if self.tables.workloads.get(&id)? != Some(Workload::REFUSED) {
                self.record(id, &Workload::REFUSED)?;
            }
        }
        Ok(problem)
    }

    /// After all cgroups have been looked at: what the kernel had seen before is seen to, unless something still is not
    /// recorded.
    pub(super) fn settle_enrolment(&mut self, seen: io::Result<u64>) {
        let marked = self.mark_all();
        let settle = || {
            marked?;
            let seen = seen?;
            let before = self.tables.overflow.get(&OVERFLOW_SETTLED)?.unwrap_or_default();
            let unseen = self.workloads.iter().any(|workload| workload.is_unseen);
            let now = match self.unenrolled.since {
                None if unseen => before,
                None => Overflow { count: seen, since: 0, everywhere: 0 },
                Some(since) => Overflow {
                    count: before.count,
                    since,
                    everywhere: u64::from(self.unenrolled.everywhere),
                },
            };
            if now == before {
                return Ok(());
            }
            self.tables.overflow.insert(&OVERFLOW_SETTLED, &now)
        };
        let settled: io::Result<()> = settle();
        if let Err(error) = settled {
            tracing::warn!(%error, "cgroups that could not be recorded stay refused");
        }
    }

    /// Cgroups that have an entry by this configuration.
    pub(super) fn recorded(&self) -> BTreeSet<u64> {
        let workloads = self.workloads.iter();
        let theirs = workloads.flat_map(|w| w.cgroups.keys().chain(&w.too_long).copied());
        theirs.chain(self.unenrolled.marked.iter().copied()).collect()
    }
}
