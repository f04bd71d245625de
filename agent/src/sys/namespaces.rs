//! Which namespaces, other than network namespaces, the process is in.
//!
//! The kernel's side of Sheath sees the host: the whole cgroup hierarchy, and every process. An agent that sees less
//! of it than that would believe itself complete while the kernel knows workloads that it does not find, and it
//! workloads that the kernel does not recognise.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};

/// A kind of namespace, named as in `/proc/<pid>/ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Cgroup,
    Pid,
    User,
}

impl Kind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Pid => "pid",
            Self::User => "user",
        }
    }

    /// Inode number of the host's own namespace, the same on every machine (`include/linux/proc_ns.h`, and by now
    /// `include/uapi/linux/nsfs.h`).
    fn initial(self) -> u64 {
        match self {
            Self::Cgroup => 0xEFFF_FFFB,
            Self::Pid => 0xEFFF_FFFC,
            Self::User => 0xEFFF_FFFD,
        }
    }

    /// True if the process is in the host's own.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn is_hosts(self) -> io::Result<bool> {
        Ok(fs::metadata(self.of("self"))?.ino() == self.initial())
    }

    fn of(self, process: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{process}/ns/{}", self.name()))
    }
}

/// Processes to take the host's view from: init, the kernel's own first thread, and whoever has started the agent.
#[must_use]
pub fn hosts_processes() -> [String; 3] {
    ["1".to_owned(), "2".to_owned(), nix::unistd::getppid().to_string()]
}

/// Moves the calling thread into the host's cgroup namespace, if it is in another and can find the host's. Threads that
/// it starts afterwards follow. What is mounted does not change by it.
///
/// # Errors
/// If it is still in another.
pub fn join_hosts_cgroups() -> io::Result<()> {
    if Kind::Cgroup.is_hosts()? {
        return Ok(());
    }
    let is_hosts = |file: &File| {
        file.metadata().is_ok_and(|metadata| metadata.ino() == Kind::Cgroup.initial())
    };
    let mut candidates =
        hosts_processes().into_iter().filter_map(|pid| File::open(Kind::Cgroup.of(&pid)).ok());
    let namespace = candidates.find(is_hosts).ok_or(io::ErrorKind::NotFound)?;
    setns(namespace, CloneFlags::CLONE_NEWCGROUP)?;
    Ok(())
}

/// True if a process sees the same mounts as this one: in Kubernetes, those of a container do. False if that cannot be told.
#[must_use]
pub fn shares_mounts_with(pid: u64) -> bool {
    let namespace = |process: &str| {
        let found = fs::metadata(format!("/proc/{process}/ns/mnt")).ok()?;
        Some((found.dev(), found.ino()))
    };
    let own = namespace("self");
    own.is_some() && own == namespace(&pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mounts_of_another_namespace_are_other_mounts() {
        assert!(shares_mounts_with(std::process::id().into()));
        assert!(!shares_mounts_with(u64::MAX), "nobody");
        let apart = std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
            // Of the thread, which `/proc` knows by its number as well.
            !shares_mounts_with(nix::unistd::gettid().as_raw() as u64)
        });
        assert!(apart.join().unwrap());
    }

    #[test]
    fn a_cgroup_namespace_of_its_own_is_left_for_the_hosts() {
        let joined = std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).unwrap();
            let own = || fs::metadata("/proc/thread-self/ns/cgroup").unwrap().ino();
            let before = own();
            // Of the thread; `is_hosts` asks for the process, which here has not moved.
            let namespace = File::open(Kind::Cgroup.of("2")).unwrap();
            setns(namespace, CloneFlags::CLONE_NEWCGROUP).unwrap();
            (before, own())
        });
        let (before, after) = joined.join().unwrap();
        assert_ne!(before, Kind::Cgroup.initial());
        assert_eq!(after, Kind::Cgroup.initial());
    }
}
