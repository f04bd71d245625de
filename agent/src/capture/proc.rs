//! What `/proc` says about a workload's processes.
//!
//! A process may go on after its main thread has ended, and its cgroup still lists it. Its files are empty or missing then, and
//! those of another thread are read instead (proc(5)).

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A network namespace file of a process.
pub struct NamespaceFile {
    pub path: PathBuf,
    pub inode: u64,
}

/// The network namespace of a process; `None` if it has ended.
///
/// # Errors
/// If it cannot be looked at for another reason.
pub fn network_namespace(pid: u32) -> io::Result<Option<NamespaceFile>> {
    for task in tasks(pid) {
        let path = task.join("ns/net");
        match fs::metadata(&path) {
            Ok(metadata) => return Ok(Some(NamespaceFile { path, inode: metadata.ino() })),
            Err(error) if has_ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Inode numbers of all sockets that the processes have open.
pub fn socket_inodes(processes: &BTreeSet<u32>) -> HashSet<u32> {
    processes.iter().flat_map(|pid| sockets(*pid)).map(|(_, inode)| inode).collect()
}

/// Descriptors and inode numbers of all sockets that a process has open (proc_pid_fd(5)).
pub fn sockets(pid: u32) -> Vec<(i32, u32)> {
    // A thread that has ended shows nothing.
    let descriptors = tasks(pid).find_map(|task| {
        let entries = fs::read_dir(task.join("fd")).ok()?;
        Some(entries.flatten().collect::<Vec<_>>()).filter(|entries| !entries.is_empty())
    });
    let socket = |entry: &fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, inode))
    };
    descriptors.iter().flatten().filter_map(socket).collect()
}

/// The directory of a process, then those of its threads. The latter are listed only when they are asked for.
fn tasks(pid: u32) -> impl Iterator<Item = PathBuf> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let threads = process.join("task");
    let threads = std::iter::once_with(move || fs::read_dir(threads))
        .flatten()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()));
    std::iter::once(process).chain(threads)
}

fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}
