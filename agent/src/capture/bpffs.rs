//! The file systems that capture needs: cgroup2 must be there, bpffs and tracefs are mounted where they are
//! missing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::CaptureError;

/// Where `/sys/fs/bpf` belongs.
const BPFFS: &str = "/sys/fs/bpf";
const TRACEFS: &str = "/sys/kernel/tracing";
/// Where older systems have it.
const TRACEFS_IN_DEBUGFS: &str = "/sys/kernel/debug/tracing";

/// Where the cgroup v2 hierarchy is mounted.
pub fn cgroup_mount() -> Result<PathBuf, CaptureError> {
    let mounts = fs::read_to_string("/proc/self/mounts")
        .map_err(CaptureError::during("cannot read /proc/self/mounts"))?;
    mount_point(&mounts, "cgroup2").ok_or(CaptureError::NoCgroup2)
}

/// Makes sure that `/sys/fs/bpf` is a BPF file system.
pub fn ensure_bpffs() -> Result<(), CaptureError> {
    ensure_mounted("bpf", Path::new(BPFFS))
}

/// Makes sure that tracefs is mounted and tells where.
pub fn ensure_tracefs() -> Result<PathBuf, CaptureError> {
    for candidate in [TRACEFS, TRACEFS_IN_DEBUGFS] {
        if Path::new(candidate).join("events").is_dir() {
            return Ok(candidate.into());
        }
    }
    ensure_mounted("tracefs", Path::new(TRACEFS))?;
    Ok(TRACEFS.into())
}

fn ensure_mounted(kind: &'static str, path: &Path) -> Result<(), CaptureError> {
    let mounts = fs::read_to_string("/proc/self/mounts")
        .map_err(CaptureError::during("cannot read /proc/self/mounts"))?;
    if is_mounted(&mounts, kind, path) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), path, Some(kind), flags, Some("mode=0700")).map_err(|error| {
        CaptureError::Mount { kind, path: path.to_owned(), error: io::Error::from(error) }
    })
}

fn is_mounted(mounts: &str, kind: &str, path: &Path) -> bool {
    entries(mounts).any(|(at, of)| of == kind && Path::new(at) == path)
}

fn mount_point(mounts: &str, kind: &str) -> Option<PathBuf> {
    entries(mounts).find(|(_, of)| *of == kind).map(|(at, _)| at.into())
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
    use super::*;

    const HYBRID: &str = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
        none /sys/fs/bpf bpf rw 0 0\n";

    #[test]
    fn finds_the_v2_hierarchy_in_a_hybrid_set_up() {
        assert_eq!(mount_point(HYBRID, "cgroup2"), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("proc /proc proc rw 0 0\n", "cgroup2"), None);
    }

    #[test]
    fn knows_what_is_mounted_where() {
        assert!(is_mounted(HYBRID, "bpf", Path::new("/sys/fs/bpf")));
        assert!(!is_mounted(HYBRID, "bpf", Path::new("/sys/fs")));
        assert!(!is_mounted(HYBRID, "tracefs", Path::new("/sys/fs/bpf")));
    }
}
