//! A cluster's directory: certificates, configurations, logs, and what containerd and the kubelets keep. Whoever changes
//! a cluster holds the lock of the directory that all of them are in.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{env, io, process};

use anyhow::{Context, Result, ensure};

use super::names;

/// The directory of all clusters of this user, locked.
pub struct Home {
    path: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes the directory if there is none, and waits until nobody else changes a cluster.
    ///
    /// # Errors
    /// When it cannot be made, or is not this user's alone.
    pub fn lock() -> Result<Self> {
        let path = path();
        loop {
            let mut builder = fs::DirBuilder::new();
            match builder.mode(0o700).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("cannot create {}", path.display()));
                }
                _ => {}
            }
            let Ok(lock) = File::open(&path) else { continue };
            lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            // Whoever had it before may have removed it.
            let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
            let ours = inode(lock.metadata().context("the directory of all clusters")?);
            if fs::symlink_metadata(&path).map(inode).ok() != Some(ours) {
                continue;
            }
            check_owner(&path)?;
            return Ok(Self { path, _lock: lock });
        }
    }

    /// The directory of a cluster, which may not be there.
    pub fn cluster(&self, name: &str) -> State {
        State { path: self.path.join(name) }
    }

    /// The names of all clusters that have a directory.
    pub fn clusters(&self) -> Vec<String> {
        clusters_in(&self.path)
    }
}

impl Drop for Home {
    /// Removes the directory with the last cluster.
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// The names of all clusters that have a directory, without a lock.
pub fn clusters() -> Vec<String> {
    clusters_in(&path())
}

/// The directory of a cluster, without a lock: for those who only read.
pub fn of(name: &str) -> State {
    State { path: path().join(name) }
}

fn clusters_in(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| names::check(name).is_ok()).collect();
    names.sort();
    names
}

/// In the directory for temporary files, which is on a disk more often than the one for sockets: images are unpacked in it.
fn path() -> PathBuf {
    env::temp_dir().join(format!("sheath-clusters-{}", nix::unistd::geteuid()))
}

fn check_owner(path: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(path).context("the directory of all clusters")?;
    let is_ours = meta.is_dir()
        && meta.uid() == nix::unistd::geteuid().as_raw()
        && meta.permissions().mode() & 0o077 == 0;
    ensure!(is_ours, "{} is not a directory of this user alone: remove it", path.display());
    Ok(())
}

/// The directory of one cluster.
#[derive(Clone)]
pub struct State {
    path: PathBuf,
}

impl State {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or directory in it.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }

    /// Makes the directory, for a process that is to have it to its end, or for as long as anybody wants it.
    ///
    /// # Errors
    /// When there is one already.
    pub fn create(&self, owner: Option<u32>) -> Result<()> {
        let context = || format!("cannot create {}", self.path.display());
        fs::DirBuilder::new().mode(0o700).create(&self.path).with_context(context)?;
        if let Some(pid) = owner {
            self.write("owner", &format!("{pid} {}", start_of(pid).unwrap_or_default()))?;
        }
        Ok(())
    }

    /// Whether the process that wanted the cluster has ended without having taken it down.
    pub fn is_orphan(&self) -> bool {
        let Ok(owner) = fs::read_to_string(self.at("owner")) else { return false };
        let mut fields = owner.split(' ').map(|field| field.parse().ok());
        let (pid, start) = (fields.next().flatten(), fields.next().flatten());
        pid.is_none_or(|pid: u64| u32::try_from(pid).ok().and_then(start_of) != start)
    }

    /// Whether this very process wanted it.
    pub fn is_ours(&self) -> bool {
        let owner = fs::read_to_string(self.at("owner")).unwrap_or_default();
        owner.split(' ').next() == Some(&process::id().to_string())
    }

    /// Writes a file that nobody else may read, and the directories that it is in.
    ///
    /// # Errors
    /// When that fails.
    pub fn write(&self, path: &str, text: &str) -> Result<PathBuf> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.at(path);
        let write = || {
            if let Some(parent) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let mut options = fs::OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Makes a directory in it.
    ///
    /// # Errors
    /// When that fails.
    pub fn make_dir(&self, path: &str) -> Result<PathBuf> {
        let path = self.at(path);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }

    /// Removes the directory and everything in it, if it is there.
    ///
    /// # Errors
    /// When that fails.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// When a process was started, in ticks since boot: field 22 of proc_pid_stat(5). With its number that is its name.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orphan_is_a_cluster_whose_owner_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let state = State { path: dir.path().join("one") };
        state.create(Some(process::id())).unwrap();
        assert!(state.is_ours() && !state.is_orphan());
        // The same number, but another process.
        state.write("owner", &format!("{} 1", process::id())).unwrap();
        assert!(state.is_orphan());
        state.write("owner", "4194999 17").unwrap();
        assert!(state.is_orphan() && !state.is_ours());
        state.remove().unwrap();
        state.create(None).unwrap();
        assert!(!state.is_orphan());
        assert!(state.create(None).is_err());
    }

    #[test]
    fn files_are_this_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = State { path: dir.path().join("one") };
        state.create(None).unwrap();
        let file = state.write("pki/ca.key", "secret").unwrap();
        for path in [&file, file.parent().unwrap(), state.path()] {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
    }
}
