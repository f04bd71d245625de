//! What `/proc` says about a workload's processes.
//!
//! The files of a process whose main thread has ended are empty or missing, although its other threads go on and its
//! cgroup lists it: then one of those is asked (proc(5)).

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
/// Whatever keeps it from being seen.
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

/// Inode numbers of all sockets that the processes have open (proc_pid_fd(5)).
pub fn socket_inodes(processes: &BTreeSet<u32>) -> HashSet<u32> {
    let mut inodes = HashSet::new();
    for pid in processes {
        for task in tasks(*pid) {
            let Ok(entries) = fs::read_dir(task.join("fd")) else {
                continue;
            };
            let mut is_empty = true;
            for entry in entries.flatten() {
                is_empty = false;
                let Ok(target) = fs::read_link(entry.path()) else {
                    continue;
                };
                let inode = target
                    .to_str()
                    .and_then(|text| text.strip_prefix("socket:["))
                    .and_then(|text| text.strip_suffix(']'))
                    .and_then(|text| text.parse::<u32>().ok());
                inodes.extend(inode);
            }
            // A thread that has ended shows nothing.
            if !is_empty {
                break;
            }
        }
    }
    inodes
}

/// The directory of a process, then those of its threads, which are only looked for if need be.
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
