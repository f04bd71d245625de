//! The file systems that capture needs: cgroup2 must be there, bpffs and tracefs are mounted where they are
//! missing.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::capture::error::CaptureError;
use crate::sys::namespaces::hosts_processes;

/// Where `/sys/fs/bpf` belongs.
const BPFFS: &str = "/sys/fs/bpf";
const CGROUP2: &str = "cgroup2";
const TRACEFS: &str = "/sys/kernel/tracing";
/// Where older systems have it.
const TRACEFS_IN_DEBUGFS: &str = "/sys/kernel/debug/tracing";

/// Inode number of the root of the cgroup v2 hierarchy. No other cgroup has it (`cgroup_setup_root` in
/// kernel/cgroup/cgroup.c).
pub const ROOT_CGROUP: u64 = 1;

/// Where the cgroup v2 hierarchy is mounted, from its root on: the kernel knows cgroups by their paths from there.
///
/// # Errors
/// If it is not mounted, or only a part of it, or it cannot be seen from this mount namespace.
pub fn cgroup_mount() -> Result<PathBuf, CaptureError> {
    let mounts = fs::read_to_string("/proc/self/mounts")
        .map_err(CaptureError::during("cannot read /proc/self/mounts"))?;
    // What is mounted above it may hide a mount that is still listed.
    let visible: Vec<_> = mount_points(&mounts, CGROUP2).filter(|path| is_cgroup2(path)).collect();
    let is_root = |path: &Path| fs::metadata(path).is_ok_and(|found| found.ino() == ROOT_CGROUP);
    if let Some(path) = visible.iter().find(|path| is_root(path)) {
        return Ok(path.to_path_buf());
    }
    if let Some(part) = visible.first() {
        return Err(CaptureError::PartOfCgroup2 { path: part.to_path_buf() });
    }
    let elsewhere = hosts_processes()
        .iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/mounts")).ok())
        .any(|mounts| mount_points(&mounts, CGROUP2).next().is_some());
    Err(if elsewhere { CaptureError::HiddenCgroup2 } else { CaptureError::NoCgroup2 })
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// False if what is pinned here would go with this mount namespace, because its bpffs is not the host's. Each
/// mount of a bpffs that is made anew is another file system, with another device number.
#[must_use]
pub fn pins_outlive_the_agent() -> bool {
    let device = |root: &str| Some(fs::metadata(format!("{root}{BPFFS}")).ok()?.dev());
    let theirs = hosts_processes()[..2].iter().find_map(|pid| device(&format!("/proc/{pid}/root")));
    // If neither can be inspected, assume that it is the host's.
    theirs.is_none() || theirs == device("")
}

/// Makes sure that `/sys/fs/bpf` is a BPF file system, and the host's.
///
/// # Errors
/// If it cannot be mounted, or would go with this mount namespace.
pub fn ensure_bpffs() -> Result<(), CaptureError> {
    let path = Path::new(BPFFS);
    ensure_mounted("bpf", path)?;
    if pins_outlive_the_agent() { Ok(()) } else { Err(CaptureError::PrivateBpffs) }
}

/// Makes sure that tracefs is mounted and tells where.
///
/// # Errors
/// If it cannot be mounted.
pub fn ensure_tracefs() -> Result<PathBuf, CaptureError> {
    for candidate in [TRACEFS, TRACEFS_IN_DEBUGFS] {
        if Path::new(candidate).join("events").is_dir() {
            return Ok(candidate.into());
        }
    }
    ensure_mounted("tracefs", Path::new(TRACEFS))?;
    Ok(TRACEFS.into())
}

/// Agents that start together take turns: a second bpffs on top of the first would hide what is pinned there.
fn ensure_mounted(kind: &'static str, path: &Path) -> Result<(), CaptureError> {
    if is_mounted_now(kind, path)? {
        return Ok(());
    }
    let failed = |error: io::Error| CaptureError::Mount { kind, path: path.to_owned(), error };
    let _turn = take_turn(path).map_err(failed)?;
    if is_mounted_now(kind, path)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some(kind), path, Some(kind), flags, Some("mode=0700")) {
        // Another process, which takes no turns, has just mounted the same: there is one tracefs for all.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

/// Any process that may read a directory may lock it. An agent does so only for a moment, so nobody waits long for a lock.
fn take_turn(directory: &Path) -> io::Result<File> {
    const TRIES: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(20);
    let directory = File::open(directory)?;
    for _ in 0..TRIES {
        match directory.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(directory)
}

fn is_mounted_now(kind: &str, path: &Path) -> Result<bool, CaptureError> {
    // Those of the calling thread, which may have another mount namespace than its process.
    let mounts = fs::read_to_string("/proc/thread-self/mounts")
        .map_err(CaptureError::during("cannot read /proc/thread-self/mounts"))?;
    Ok(is_mounted(&mounts, kind, path))
}

fn is_mounted(mounts: &str, kind: &str, path: &Path) -> bool {
    entries(mounts).any(|(at, of)| of == kind && Path::new(at) == path)
}

fn mount_points<'m>(mounts: &'m str, kind: &'static str) -> impl Iterator<Item = &'m Path> {
    entries(mounts).filter(move |(_, of)| *of == kind).map(|(at, _)| Path::new(at))
}

/// Mount point and type of each line (proc_pid_mounts(5)).
fn entries(mounts: &str) -> impl Iterator<Item = (&str, &str)> {
    mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use nix::mount::umount;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    const HYBRID: &str = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
        none /sys/fs/bpf bpf rw 0 0\n";

    #[test]
    fn finds_the_v2_hierarchy_in_a_hybrid_set_up() {
        let first = |mounts| mount_points(mounts, CGROUP2).next();
        assert_eq!(first(HYBRID), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(first("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn knows_what_is_mounted_where() {
        assert!(is_mounted(HYBRID, "bpf", Path::new("/sys/fs/bpf")));
        assert!(!is_mounted(HYBRID, "bpf", Path::new("/sys/fs")));
        assert!(!is_mounted(HYBRID, "tracefs", Path::new("/sys/fs/bpf")));
    }

    #[test]
    fn agents_that_start_together_mount_a_file_system_once() {
        const AGENTS: usize = 16;
        let alone = || {
            // Threads that are started here are in the new namespace as well.
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            for kind in ["bpf", "tracefs"] {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path();
                let start = Barrier::new(AGENTS);
                thread::scope(|scope| {
                    for _ in 0..AGENTS {
                        scope.spawn(|| {
                            start.wait();
                            ensure_mounted(kind, path).unwrap();
                        });
                    }
                });
                let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
                assert_eq!(mount_points(&mounts, kind).filter(|at| *at == path).count(), 1);
                umount(path).unwrap();
            }
        };
        thread::spawn(alone).join().unwrap();
    }

    #[test]
    fn a_directory_that_somebody_holds_does_not_hold_up_an_agent() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = File::open(directory.path()).unwrap();
        theirs.lock().unwrap();
        take_turn(directory.path()).unwrap();
    }
}
