//! Cgroup v2 subtrees, made under the mount wherever it is, removed with everything in them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::wait;

/// One directory of the cgroup v2 tree. Dropping it kills the processes still inside: whoever is
/// in a cgroup that a test made was started by that test.
pub struct Cgroup {
    path: PathBuf,
    shared: bool,
    // Keeps the parents, and with them the order of removal: children first.
    _parent: Option<Arc<Cgroup>>,
}

impl Cgroup {
    /// A new cgroup directly under the mount.
    pub fn top(name: &str) -> Arc<Self> {
        Self::create(mount().join(name), None)
    }

    /// A new cgroup below this one.
    pub fn child(self: &Arc<Self>, name: impl AsRef<Path>) -> Arc<Self> {
        Self::create(self.path.join(name), Some(self.clone()))
    }

    /// A cgroup directly under the mount that may exist, and have others in it, like
    /// `system.slice`. It is removed only if it is empty.
    pub fn shared(name: &str) -> Arc<Self> {
        let path = mount().join(name);
        fs::create_dir_all(&path)
            .unwrap_or_else(|error| panic!("cgroup {}: {error}", path.display()));
        Arc::new(Self { path, shared: true, _parent: None })
    }

    fn create(path: PathBuf, parent: Option<Arc<Self>>) -> Arc<Self> {
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cgroup {}: {error}", path.display()));
        Arc::new(Self { path, shared: false, _parent: parent })
    }

    /// Absolute path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path relative to the cgroup v2 mount, as the configuration wants it.
    pub fn relative(&self) -> String {
        self.path.strip_prefix(mount()).unwrap().display().to_string()
    }

    /// The file a process writes `0` to in order to move itself here.
    pub fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// [`Self::procs`], open for writing.
    pub fn open_procs(&self) -> File {
        OpenOptions::new()
            .write(true)
            .open(self.procs())
            .unwrap_or_else(|error| panic!("{}: {error}", self.procs().display()))
    }

    /// The inode number of the directory, which is the kernel's cgroup id.
    pub fn id(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&self.path).expect("the cgroup's inode").ino()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.shared {
            let _ = fs::remove_dir(&self.path);
            return;
        }
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        // Killed processes leave the cgroup when they are reaped, which their owner may do later.
        let removed = wait::uninterrupted(wait::GENEROUS, || remove_tree(&self.path).ok());
        if removed.is_none() {
            eprintln!("could not remove cgroup {}", self.path.display());
        }
    }
}

/// Removes a cgroup and the cgroups below it, which `remove_dir_all` cannot: their files stay.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Where cgroup v2 is mounted.
pub fn mount() -> &'static Path {
    static MOUNT: OnceLock<PathBuf> = OnceLock::new();
    MOUNT.get_or_init(|| {
        fs::read_to_string("/proc/mounts")
            .expect("/proc/mounts")
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .map(|fields| PathBuf::from(fields[1]))
            .expect("a cgroup v2 mount")
    })
}
