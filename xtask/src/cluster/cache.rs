//! Where built programs of the cluster are kept: in the user's cache, by what they are made of, so that every clone of
//! the repository finds them.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::build;
use super::modules::MODULES;
use crate::prerequisites::Need;
use crate::{console, install, workspace};

/// Sees to it that the programs are built, and that `target/tools/cluster` leads to them. Returns their directory.
///
/// # Errors
/// When something is missing that cannot be installed, or the build fails.
pub fn ensure() -> Result<PathBuf> {
    let (home, key) = (home()?, key()?);
    let programs = home.join(&key).join("bin");
    if !programs.exists() {
        build_once(&home, &key)?;
    }
    link(&programs)?;
    Ok(programs)
}

/// Builds under a lock. Whoever comes second finds what the first has built.
fn build_once(home: &Path, key: &str) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home)
        .with_context(|| format!("cannot create {}", home.display()))?;
    let lock = File::create(home.join("lock")).context("cannot create the cache's lock")?;
    if lock.try_lock().is_err() {
        console::say("waiting for another build of the cluster's programs ...");
        lock.lock().context("cannot lock the cache")?;
    }
    let done = home.join(key);
    if done.join("bin").exists() {
        return Ok(());
    }
    install::ensure(&[Need::Cluster])?;
    let partial = home.join(format!("{key}.partial"));
    let bin = partial.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot create {}", bin.display()))?;
    build::all(&bin)?;
    // Last, so that a build cut short counts as none.
    fs::rename(&partial, &done).with_context(|| format!("cannot create {}", done.display()))
}

/// `sheath/cluster` in the user's cache.
fn home() -> Result<PathBuf> {
    let absolute =
        |dir: std::ffi::OsString| Some(PathBuf::from(dir)).filter(|dir| dir.is_absolute());
    let cache = env::var_os("XDG_CACHE_HOME").and_then(absolute);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let cache = cache.context("no home directory to keep built programs in: set XDG_CACHE_HOME")?;
    Ok(cache.join("sheath/cluster"))
}

/// Stands for what the programs are made of: modules, flags and architecture. Not for the Go release: any that
/// is accepted will do.
fn key() -> Result<String> {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    add(env::consts::ARCH.as_bytes());
    for module in MODULES {
        for name in ["go.mod", "go.sum", "main.go"] {
            let path = module.dir().join(name);
            match fs::read(&path) {
                // Only our own has a source, and only others have sums.
                Err(error) if error.kind() == ErrorKind::NotFound => add(b""),
                text => add(&text.with_context(|| format!("cannot read {}", path.display()))?),
            }
        }
        for argument in build::arguments(&module)? {
            add(argument.as_bytes());
        }
        for (path, program) in module.programs {
            add(path.as_bytes());
            add(program.as_bytes());
        }
    }
    Ok(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Where the scenarios look for the programs.
fn link(programs: &Path) -> Result<()> {
    let link = workspace::tools_dir().join("cluster");
    if fs::read_link(&link).is_ok_and(|target| target == programs) {
        return Ok(());
    }
    fs::create_dir_all(workspace::tools_dir()).context("cannot create target/tools")?;
    let _ = fs::remove_file(&link);
    symlink(programs, &link).with_context(|| format!("cannot link {}", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_same_each_time() {
        let key = key().unwrap();
        assert_eq!(key.len(), 16, "{key}");
        assert_eq!(key, super::key().unwrap());
    }
}
