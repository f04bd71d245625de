//! Cgroups on the host's side: those that exist when the agent starts, and the processes in them.
//!
//! Paths are bytes, as in the kernel: the name of a cgroup need not be UTF-8. [`shown`] makes them readable.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sheath_common::selector::Glob;

use super::kernel::filesystems::cgroup_mount;
use super::pod_settings::PodRoot;
use crate::desired::{CgroupSelector, Workload};
use crate::sys::cgroup_id;

/// A cgroup that is the root of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadCgroup {
    /// Inode number of its directory, which is what the kernel calls its id.
    pub id: u64,
    /// From the cgroup v2 root.
    pub path: PathBuf,
}

/// True if the cgroup has not been removed, nor made anew.
#[must_use]
pub fn is_there(mount: &Path, cgroup: &WorkloadCgroup) -> bool {
    fs::metadata(join(mount, &cgroup.path)).is_ok_and(|found| found.ino() == cgroup.id)
}

/// Visits every cgroup below `path` that `leads_on` leads to: it is asked of each whether to look below it.
///
/// # Errors
/// If the hierarchy cannot be read, for want of descriptors for instance. That is not the same as finding nothing.
pub fn walk(
    mount: &Path,
    path: &Path,
    leads_on: &impl Fn(&Path) -> bool,
    visit: &mut impl FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if !leads_on(path) {
        return Ok(());
    }
    for child in children(&join(mount, path))? {
        let child = path.join(child);
        visit(&child)?;
        walk(mount, &child, leads_on, visit)?;
    }
    Ok(())
}

/// The path of a cgroup; `None` if it has been removed. Of one whose path is too long for a system call, the path of one
/// above it.
///
/// # Errors
/// If the cgroup cannot be looked up.
pub fn path_of(mount: &Path, id: u64) -> io::Result<Option<PathBuf>> {
    match cgroup_id::directory(mount, id) {
        Ok(directory) => {
            let below = directory.strip_prefix(mount).ok();
            Ok(below.map(|below| Path::new("/").join(below)))
        }
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names of the cgroups in a directory; none if it is gone.
///
/// # Errors
/// As for `walk`.
pub fn children(directory: &Path) -> io::Result<Vec<OsString>> {
    let Some(entries) = unless_gone(fs::read_dir(directory))? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        let Some(entry) = unless_gone(entry)? else {
            continue;
        };
        if unless_gone(entry.file_type())?.is_some_and(|kind| kind.is_dir()) {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}

/// `None` for a cgroup that has been removed, which may happen at any moment, or whose path no system call takes (PATH_MAX).
/// If it would be a workload's, the kernel refuses it as too long; if it lies below a workload's, it is only not listed.
///
/// # Errors
/// Any other failure.
pub fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if is_gone(&error)
                || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENAMETOOLONG)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESTALE)
}

/// Directory of a cgroup given by its path from the root.
#[must_use]
pub fn join(mount: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    mount.join(path.strip_prefix("/").unwrap_or(path))
}

/// A cgroup's path as people read it: in one line, whatever its name is.
#[must_use]
pub fn shown(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// True if a cgroup is `root` or lies below it, by whole names.
#[must_use]
pub fn is_below(path: &Path, root: &Path) -> bool {
    path.starts_with(root)
}

/// Processes in a cgroup and below it.
///
/// # Errors
/// As for `walk`.
pub fn processes(directory: &Path) -> io::Result<BTreeSet<u32>> {
    let mut pids = BTreeSet::new();
    collect_processes(directory, &mut pids)?;
    Ok(pids)
}

fn collect_processes(directory: &Path, pids: &mut BTreeSet<u32>) -> io::Result<()> {
    match unless_gone(fs::read_to_string(directory.join("cgroup.procs"))) {
        Ok(text) => {
            let text = text.unwrap_or_default();
            // Zero stands for a process of another pid namespace, which cannot be looked at.
            let listed = text.lines().filter_map(|line| line.parse::<u32>().ok());
            pids.extend(listed.filter(|pid| *pid != 0));
        }
        // A threaded cgroup lists its processes in the domain above it.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(error) => return Err(error),
    }
    for child in children(directory)? {
        collect_processes(&directory.join(child), pids)?;
    }
    Ok(())
}

/// The agent's own cgroup, from the cgroup v2 root (cgroups(7), `/proc/<pid>/cgroup`).
///
/// # Errors
/// If `/proc` cannot be read.
pub fn own() -> io::Result<PathBuf> {
    of_process("self")
}

/// The cgroup of a process, from the cgroup v2 root.
///
/// # Errors
/// If `/proc` cannot be read, for one because the process has ended.
pub fn of_process(pid: &str) -> io::Result<PathBuf> {
    // Line by line: the kernel makes no cgroup with a line break in its name. It escapes nothing.
    let text = fs::read(format!("/proc/{pid}/cgroup"))?;
    let path = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    Ok(PathBuf::from(OsStr::from_bytes(path.unwrap_or(b"/"))))
}

/// True if a process is in a cgroup of the workload's now.
#[must_use]
pub fn is_member(workload: &Workload, pods: Option<&PodRoot>, pid: u32) -> bool {
    of_process(&pid.to_string()).is_ok_and(|path| selects(workload, pods, &path))
}

/// True if a workload has the cgroup at `path` or one above it.
#[must_use]
pub fn selects(workload: &Workload, pods: Option<&PodRoot>, path: &Path) -> bool {
    match workload.cgroup {
        CgroupSelector::Id(id) => cgroup_mount().is_ok_and(|mount| {
            let is_it = |path: &Path| is_there(&mount, &WorkloadCgroup { id, path: path.into() });
            path.ancestors().any(is_it)
        }),
        CgroupSelector::Pod(uid) => pods.is_some_and(|root| root.has(uid, path)),
        CgroupSelector::Pattern(_) => {
            let matches =
                |glob: Glob| path.ancestors().any(|path| glob.matches(path.as_os_str().as_bytes()));
            workload.glob().is_some_and(matches)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_below_another_by_whole_names() {
        for (path, expected) in [("/a/b", true), ("/a/b/c", true), ("/a/bc", false), ("/a", false)]
        {
            assert_eq!(is_below(Path::new(path), Path::new("/a/b")), expected, "{path}");
        }
        let odd = Path::new(OsStr::from_bytes(b"/a/\xff"));
        assert!(is_below(&odd.join("b"), odd) && is_below(odd, Path::new("/a")));
    }

    #[test]
    fn every_path_is_shown_in_one_line() {
        let path = Path::new(OsStr::from_bytes(b"/a\xff/\x1b[31m\r\t\xc3\xa4"));
        assert_eq!(shown(path), "/a\u{fffd}/\\u{1b}[31m\\r\\t\u{e4}");
    }

    #[test]
    fn a_workload_may_be_a_cgroup_that_exists_by_its_id() {
        let mount = cgroup_mount().unwrap();
        let path = PathBuf::from(format!("/sheath-by-id-{}", std::process::id()));
        let directory = join(&mount, &path);
        fs::create_dir(&directory).unwrap();
        let id = fs::metadata(&directory).unwrap().ino();
        let workload = Workload { cgroup: CgroupSelector::Id(id), ..Workload::testing("web") };
        let found = path_of(&mount, id);
        let selected = selects(&workload, None, &path.join("below"));
        let other = selects(&workload, None, Path::new("/"));
        fs::remove_dir(&directory).unwrap();
        assert_eq!(found.unwrap(), Some(path));
        assert!(selected && !other);
        assert_eq!(path_of(&mount, id).unwrap(), None);
    }

    /// Otherwise a name could add a line to `/proc/<pid>/cgroup`.
    #[test]
    fn no_cgroup_has_a_line_break_in_its_name() {
        let mount = crate::capture::cgroup_mount().unwrap();
        let name = format!("sheath-line-{}\n0::", std::process::id());
        let error = fs::create_dir(mount.join(name)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
