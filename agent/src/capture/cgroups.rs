//! Cgroups on the host's side: those that exist when the agent starts, and the processes in them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sheath_common::selector::matches;

use crate::config::WorkloadConfig;

/// A cgroup that is the root of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadCgroup {
    /// Inode number of its directory, which is what the kernel calls its id.
    pub id: u64,
    /// From the cgroup v2 root.
    pub path: String,
}

/// Finds the cgroups that a workload's pattern selects now.
pub fn find(mount: &Path, workload: &WorkloadConfig) -> Vec<WorkloadCgroup> {
    let selector = workload.selector();
    let depth = workload.cgroup.split('/').skip(1).count();
    let mut found = Vec::new();
    walk(mount, "", depth, &mut |path| {
        if matches(&selector, path.as_bytes())
            && let Ok(metadata) = fs::metadata(join(mount, path))
        {
            found.push(WorkloadCgroup { id: metadata.ino(), path: path.to_owned() });
        }
    });
    found
}

/// Number of cgroups that a workload's pattern selects now.
#[must_use]
pub fn count(mount: &Path, workload: &WorkloadConfig) -> usize {
    find(mount, workload).len()
}

/// Visits every cgroup exactly `depth` levels below `path`.
fn walk(mount: &Path, path: &str, depth: usize, visit: &mut impl FnMut(&str)) {
    if depth == 0 {
        visit(path);
        return;
    }
    // A cgroup that disappears meanwhile is none.
    let Ok(entries) = fs::read_dir(join(mount, path)) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let child = format!("{path}/{}", entry.file_name().to_string_lossy());
            walk(mount, &child, depth - 1, visit);
        }
    }
}

/// Directory of a cgroup given by its path from the root.
#[must_use]
pub fn join(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// Processes in a cgroup and below it.
pub fn processes(directory: &Path) -> BTreeSet<u32> {
    let mut pids = BTreeSet::new();
    collect_processes(directory, &mut pids);
    pids
}

fn collect_processes(directory: &Path, pids: &mut BTreeSet<u32>) {
    if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
        // Zero stands for a process of another pid namespace, which cannot be looked at.
        let listed = text.lines().filter_map(|line| line.parse::<u32>().ok());
        pids.extend(listed.filter(|pid| *pid != 0));
    }
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_processes(&entry.path(), pids);
        }
    }
}

/// The agent's own cgroup, from the cgroup v2 root (cgroups(7), `/proc/<pid>/cgroup`).
pub fn own() -> io::Result<String> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(path.unwrap_or("/").to_owned())
}

/// True if a pattern selects `path` or one of its ancestors.
#[must_use]
pub fn selects(workload: &WorkloadConfig, path: &str) -> bool {
    let selector = workload.selector();
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.filter(|end| *end > 0).any(|end| matches(&selector, &path.as_bytes()[..end]))
}
