//! Where an instance's BPF objects are pinned: `/sys/fs/bpf/sheath/<instance>/v<ABI>/{maps,links}/`.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sheath_common::maps::ABI;

use crate::capture::error::CaptureError;

const ROOT: &str = "/sys/fs/bpf/sheath";

/// The pin directory of one instance.
#[derive(Clone, Debug)]
pub struct Pins {
    instance: PathBuf,
}

impl Pins {
    #[must_use]
    pub fn of(instance: &str) -> Self {
        Self { instance: Path::new(ROOT).join(instance) }
    }

    /// True if an agent of this ABI has been here.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.root().is_dir()
    }

    /// The directory of the instance.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.instance
    }

    fn root(&self) -> PathBuf {
        self.instance.join(format!("v{ABI}"))
    }

    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.root().join("maps").join(name)
    }

    #[must_use]
    pub fn link(&self, name: &str) -> PathBuf {
        self.root().join("links").join(name)
    }

    /// Names of the pinned links.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn links(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root().join("links"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    /// Makes the directories, for root alone.
    ///
    /// # Errors
    /// If one cannot be made.
    pub fn create(&self) -> io::Result<()> {
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(self.root().join("maps"))?;
        private.create(self.root().join("links"))
    }

    /// Makes sure that only root can have put something here, and can remove it.
    ///
    /// # Errors
    /// `PermissionDenied` if somebody else could.
    pub fn check_ownership(&self) -> io::Result<()> {
        for directory in [Path::new(ROOT), &self.instance, &self.root()] {
            match fs::symlink_metadata(directory) {
                Ok(found) if found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0 => {}
                Ok(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        format!("{} is not root's alone", directory.display()),
                    ));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes every pin of the instance, of any ABI. Returns what was removed.
    ///
    /// # Errors
    /// If something cannot be removed; what comes after it stays.
    pub fn remove_all(&self) -> io::Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        if !self.instance.is_dir() {
            return Ok(removed);
        }
        for version in children(&self.instance)? {
            remove_version(&version, &mut removed)?;
        }
        remove_tree(&self.instance, &mut removed)?;
        // Other instances may be there.
        let _ = fs::remove_dir(ROOT);
        Ok(removed)
    }

    /// Removes the pins of agents of another ABI, whose programs turn connections to an agent that is gone. Call it only when the
    /// programs of this one are in force.
    ///
    /// # Errors
    /// If something cannot be removed; what comes after it stays.
    pub fn remove_others(&self) -> io::Result<()> {
        let mut removed = Vec::new();
        for version in children(&self.instance)?.iter().filter(|path| **path != self.root()) {
            remove_version(version, &mut removed)?;
        }
        if !removed.is_empty() {
            tracing::info!(count = removed.len(), "pins of an agent with other maps removed");
        }
        Ok(())
    }

    /// Removes what a start has made, and nothing of another ABI, which may be all that is in force.
    fn remove_own(&self) -> io::Result<()> {
        remove_version(&self.root(), &mut Vec::new())?;
        // Neither may be empty.
        let _ = fs::remove_dir(&self.instance);
        let _ = fs::remove_dir(ROOT);
        Ok(())
    }
}

/// The pins of a first start, removed again unless the start succeeds.
#[derive(Debug)]
pub struct FreshPins {
    pins: Pins,
    keep: bool,
}

impl FreshPins {
    /// Makes the pin directories. `None` if an earlier agent has left pins to take over.
    ///
    /// # Errors
    /// If they cannot be made, or somebody else than root could have put something there.
    pub fn begin(pins: &Pins) -> Result<Option<Self>, CaptureError> {
        let check = || {
            pins.check_ownership().map_err(CaptureError::during("cannot trust the pin directory"))
        };
        check()?;
        if pins.exist() {
            return Ok(None);
        }
        pins.create().map_err(CaptureError::during("cannot make the pin directory"))?;
        // Every user may make directories in a bpffs, and may have been quicker.
        check()?;
        Ok(Some(Self { pins: pins.clone(), keep: false }))
    }

    /// The start has succeeded: they stay.
    pub fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for FreshPins {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.pins.remove_own()
        {
            tracing::error!(%error, "pins of a failed start stay behind; `sheath cleanup` removes them");
        }
    }
}

/// Links first, so that programs stop before the maps they use go.
fn remove_version(version: &Path, removed: &mut Vec<PathBuf>) -> io::Result<()> {
    for kind in ["links", "maps"] {
        remove_tree(&version.join(kind), removed)?;
    }
    remove_tree(version, removed)
}

/// Removes a directory and what is in it; only files are worth a mention.
fn remove_tree(directory: &Path, removed: &mut Vec<PathBuf>) -> io::Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    for path in children(directory)? {
        if path.is_dir() {
            remove_tree(&path, removed)?;
        } else {
            fs::remove_file(&path)?;
            removed.push(path);
        }
    }
    fs::remove_dir(directory)
}

fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<_> = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}
