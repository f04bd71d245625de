//! Which cgroups belong to which workloads by a configuration: for the kernel, which recognises new cgroups, and for
//! the agent, which finds the existing ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sheath_common::selector::{Glob, Selection, base, depth};
use sheath_common::workload::Workload;

use super::cgroups::{WorkloadCgroup, is_there, join, path_of, unless_gone, walk};
use super::pod_cgroups::{self, PodCgroup};
use super::pod_settings::PodRoot;
use super::selectors::Selectors;
use crate::desired::{self, CgroupSelector, PodUid};

/// The cgroups that a workload selects now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub selected: Vec<WorkloadCgroup>,
    /// Cgroups whose paths are too long for the kernel to match.
    pub too_long: Vec<WorkloadCgroup>,
    /// Cgroups that an earlier workload selects as well, with the index of that.
    pub taken: Vec<(WorkloadCgroup, usize)>,
}

/// Finds the cgroups that a workload selects now, whoever else selects them too. Pods are below `root`.
///
/// # Errors
/// If the hierarchy cannot be read, for want of descriptors for instance. That is not the same as finding nothing.
pub fn find(
    mount: &Path,
    workload: &desired::Workload,
    root: Option<&PodRoot>,
) -> io::Result<Found> {
    let pods = match (&workload.cgroup, root) {
        (CgroupSelector::Pod(_), Some(root)) => pod_cgroups::find(mount, root)?,
        _ => Vec::new(),
    };
    Ok(Recognition::new([workload]).find(mount, &pods)?.pop().unwrap_or_default())
}

/// How the cgroups of workloads are recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recognition {
    /// The workloads' patterns in their order, and behind them the paths below which they lie.
    selectors: Selectors,
    /// Whose each pattern is, and how many components it has.
    owners: Vec<(usize, usize)>,
    /// Cgroups that are selected by their ids, and by whom.
    ids: Vec<(u64, usize)>,
    /// Pods that are selected, and by whom.
    pods: Vec<(PodUid, usize)>,
    bases: BTreeSet<String>,
    workloads: usize,
}

impl Recognition {
    pub fn new<'w>(workloads: impl IntoIterator<Item = &'w desired::Workload>) -> Self {
        let mut this = Self::default();
        let mut globs = Vec::new();
        for (index, workload) in workloads.into_iter().enumerate() {
            this.workloads += 1;
            match &workload.cgroup {
                CgroupSelector::Pattern(pattern) => {
                    this.bases.insert(base(pattern).to_owned());
                    if let Some(glob) = workload.glob() {
                        this.owners.push((index, glob.depth()));
                        globs.push(glob);
                    }
                }
                CgroupSelector::Id(id) => this.ids.push((*id, index)),
                CgroupSelector::Pod(uid) => this.pods.push((*uid, index)),
            }
        }
        let bases = this.bases.iter().filter(|path| !path.is_empty());
        globs.extend(bases.filter_map(|path| Glob::new(path.as_bytes())));
        let patterns = globs.len();
        this.selectors = Selectors::new(globs);
        for number in this.owners.len()..patterns {
            this.selectors.stand_for(number, Workload::BASE);
        }
        this
    }

    /// Sets what the kernel records for the cgroups of each workload.
    pub fn stand_for(&mut self, entry: impl Fn(usize) -> Workload) {
        for (number, (index, _)) in self.owners.iter().enumerate() {
            self.selectors.stand_for(number, entry(*index));
        }
    }

    #[must_use]
    pub fn selectors(&self) -> &Selectors {
        &self.selectors
    }

    /// Paths below which everything lies that patterns match.
    #[must_use]
    pub fn bases(&self) -> &BTreeSet<String> {
        &self.bases
    }

    #[must_use]
    pub fn has_ids(&self) -> bool {
        !self.ids.is_empty()
    }

    /// Which pods are selected, and by whom. Of several, the first has the pod.
    #[must_use]
    pub fn pods(&self) -> HashMap<PodUid, usize> {
        self.pods.iter().rev().copied().collect()
    }

    /// Workloads whose cgroups may contain those of others, as far as patterns tell.
    #[must_use]
    pub fn above_others(&self) -> BTreeSet<usize> {
        let ancestors = self.bases.iter().flat_map(|path| Path::new(path).ancestors());
        let ancestors: BTreeSet<&Path> = ancestors.collect();
        ancestors.into_iter().flat_map(|path| self.about(path)).map(|(index, _)| index).collect()
    }

    /// What the workloads' patterns say of a path, in their order. A path that is too long concerns only patterns that
    /// have as many components.
    fn about(&self, path: &Path) -> Vec<(usize, Selection)> {
        let path = path.as_os_str().as_bytes();
        let of_workload = |(number, selection): (usize, Selection)| {
            let (index, components) = *self.owners.get(number)?;
            let is_meant = selection == Selection::Selected || components == depth(path);
            is_meant.then_some((index, selection))
        };
        self.selectors.about(path).into_iter().filter_map(of_workload).collect()
    }

    /// Finds the cgroups of each workload, in the workloads' order. `pods` are the pods that there are. Of several that select a
    /// cgroup, the first has it, as in the kernel, where who writes its path comes before who names the pod.
    ///
    /// # Errors
    /// If the hierarchy cannot be read. That is not the same as finding nothing.
    pub fn find(&self, mount: &Path, pods: &[PodCgroup]) -> io::Result<Vec<Found>> {
        let mut all = vec![Found::default(); self.workloads];
        let mut selected: BTreeMap<u64, (PathBuf, Vec<(bool, usize)>)> = BTreeMap::new();
        let leads_on = |path: &Path| {
            let bytes = path.as_os_str().as_bytes();
            self.selectors.lead_below(bytes.strip_suffix(b"/").unwrap_or(bytes))
        };
        walk(mount, Path::new("/"), &leads_on, &mut |path| {
            let about = self.about(path);
            if about.is_empty() {
                return Ok(());
            }
            let Some(id) = unless_gone(fs::metadata(join(mount, path)))?.map(|found| found.ino())
            else {
                return Ok(());
            };
            for (index, selection) in about {
                if selection == Selection::TooLong {
                    all[index].too_long.push(WorkloadCgroup { id, path: path.to_owned() });
                } else {
                    let claims = &mut selected.entry(id).or_insert((path.to_owned(), Vec::new())).1;
                    claims.push((false, index));
                }
            }
            Ok(())
        })?;
        for (id, index) in &self.ids {
            let Some(path) = path_of(mount, *id)? else {
                continue;
            };
            let cgroup = WorkloadCgroup { id: *id, path };
            // Of one whose path is too long for a system call, what is known is the path of one above it.
            if is_there(mount, &cgroup) {
                let claims = &mut selected.entry(*id).or_insert((cgroup.path, Vec::new())).1;
                claims.push((false, *index));
            } else if path_of(mount, *id)?.is_some() {
                all[*index].too_long.push(cgroup);
            }
        }
        let mut by_uid: HashMap<PodUid, Vec<usize>> = HashMap::new();
        for (uid, index) in &self.pods {
            by_uid.entry(*uid).or_default().push(*index);
        }
        for pod in pods {
            let WorkloadCgroup { id, path } = &pod.cgroup;
            for index in by_uid.get(&pod.uid).into_iter().flatten() {
                let claims = &mut selected.entry(*id).or_insert((path.clone(), Vec::new())).1;
                claims.push((true, *index));
            }
        }
        for (id, (path, mut claimants)) in selected {
            claimants.sort_unstable();
            let (_, owner) = claimants[0];
            let cgroup = WorkloadCgroup { id, path };
            for (_, later) in claimants.iter().skip(1) {
                all[*later].taken.push((cgroup.clone(), owner));
            }
            all[owner].selected.push(cgroup);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
