//! The cgroups of a cluster. Each of its processes is in one below `sheath-cluster-<name>` of the v2 hierarchy, containers
//! too, so that all are found, and ended, without knowing their numbers. Where there are hierarchies of cgroup v1 as
//! well, kubelet and runc make the same tree in each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::names;
use crate::{cgroup, wait};

/// Longer than ending some hundred processes takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// How much of the processors a cluster has, where one process has 1 024: it is many processes.
const SHARES: &str = "8192";

/// The cgroups of one cluster.
#[derive(Clone)]
pub struct Cgroups {
    name: String,
}

impl Cgroups {
    pub fn of(cluster: &str) -> Self {
        Self { name: names::cgroup(cluster) }
    }

    /// The cluster's cgroup of the v2 hierarchy.
    pub fn path(&self) -> PathBuf {
        cgroup::mount().join(&self.name)
    }

    /// The path of a cgroup below the cluster's, from the root of any hierarchy.
    pub fn absolute(&self, below: &str) -> String {
        format!("/{}/{below}", self.name)
    }

    pub fn exist(&self) -> bool {
        hierarchies().iter().any(|root| root.join(&self.name).exists())
    }

    /// Makes a cgroup, in every hierarchy: kubelet wants its root to be there.
    ///
    /// # Errors
    /// When that fails.
    pub fn create(&self, below: &str) -> Result<()> {
        for root in hierarchies() {
            let path = root.join(&self.name).join(below);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create the cgroup {}", path.display()))?;
        }
        Ok(())
    }

    /// The way into a cgroup, which is made in the v2 hierarchy, and in that of v1 which shares out the processors: there, kubelet
    /// makes one of all pods, which would have as much as one single process of the node's otherwise.
    ///
    /// # Errors
    /// When that fails.
    pub fn entrance(&self, below: &str) -> Result<Entrance> {
        let roots = [Some(cgroup::mount().to_owned()), processors()].into_iter().flatten();
        let open = |root: PathBuf| {
            let path = root.join(&self.name).join(below);
            let made = fs::create_dir_all(&path);
            made.and_then(|()| OpenOptions::new().write(true).open(path.join("cgroup.procs")))
                .with_context(|| format!("cannot create the cgroup {}", path.display()))
        };
        roots.map(open).collect::<Result<_>>().map(Entrance)
    }

    /// Gives the cluster what it is to have of the processors, where a hierarchy of v1 shares them out.
    ///
    /// # Errors
    /// When that fails.
    pub fn take_shares(&self) -> Result<()> {
        let Some(root) = processors() else { return Ok(()) };
        let path = root.join(&self.name);
        fs::create_dir_all(&path)
            .and_then(|()| fs::write(path.join("cpu.shares"), SHARES))
            .with_context(|| format!("cannot set the shares of {}", path.display()))
    }

    /// The processes directly in a cgroup.
    pub fn processes(&self, below: &str) -> Vec<u32> {
        let text = fs::read_to_string(self.path().join(below).join("cgroup.procs"));
        text.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The processes in a cgroup and in all below it.
    pub fn all_processes(&self, below: &str) -> Vec<u32> {
        all_processes(&self.path().join(below))
    }

    /// Kills every process in a cgroup and below it, and waits until they have ended.
    ///
    /// # Errors
    /// When they do not end.
    pub fn kill(&self, below: &str) -> Result<()> {
        let path = self.path().join(below);
        if !path.exists() {
            return Ok(());
        }
        fs::write(path.join("cgroup.kill"), "1")
            .with_context(|| format!("cannot kill what is in {}", path.display()))?;
        let ended = wait::uninterrupted(LIMIT, || (!is_populated(&path)).then_some(()));
        ensure!(ended.is_some(), "processes in {} do not end", path.display());
        Ok(())
    }

    /// Removes the cluster's cgroups from every hierarchy. They must be empty.
    ///
    /// # Errors
    /// When that fails.
    pub fn remove(&self) -> Result<()> {
        for root in hierarchies() {
            let path = root.join(&self.name);
            // What has just been killed may still be on its way out of a hierarchy of v1.
            let mut last = None;
            let removed = wait::uninterrupted(LIMIT, || match remove_tree(&path) {
                Ok(()) => Some(()),
                Err(error) => {
                    last = Some(error);
                    None
                }
            });
            if let (None, Some(error)) = (removed, last) {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
        }
        Ok(())
    }
}

/// A way for a process into a cgroup.
#[derive(Debug)]
pub struct Entrance(Vec<File>);

impl Entrance {
    /// Moves the calling process. It allocates nothing and takes no lock.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&mut self) -> io::Result<()> {
        self.0.iter_mut().try_for_each(|procs| procs.write_all(b"0"))
    }
}

/// Where the hierarchy of v1 is mounted that shares out the processors, if there is one.
fn processors() -> Option<PathBuf> {
    let is_it = |(_, kind, options): &(PathBuf, String, String)| {
        kind == "cgroup" && options.split(',').any(|option| option == "cpu")
    };
    mounts().into_iter().find(is_it).map(|(at, ..)| at)
}

/// Where each hierarchy is mounted, of v1 and of v2.
fn hierarchies() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = mounts().into_iter().map(|(at, ..)| at).collect();
    roots.sort();
    roots.dedup();
    roots
}

/// All mounts of hierarchies: where, of which kind, and with which options.
fn mounts() -> Vec<(PathBuf, String, String)> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let of_cgroups = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, at, kind @ ("cgroup" | "cgroup2"), options, ..] => {
            Some((at.into(), kind.to_owned(), options.to_owned()))
        }
        _ => None,
    };
    mounts.lines().filter_map(of_cgroups).collect()
}

fn is_populated(path: &Path) -> bool {
    let events = fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

fn all_processes(path: &Path) -> Vec<u32> {
    let own = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|line| line.parse().ok());
    own.chain(children(path).iter().flat_map(|child| all_processes(child))).collect()
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// `remove_dir_all` cannot: the files of a cgroup stay.
fn remove_tree(path: &Path) -> io::Result<()> {
    for child in children(path) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
