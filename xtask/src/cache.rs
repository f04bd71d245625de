//! What is made once for each user and takes long: kept in the user's cache, by what it is made of, so that every clone of
//! the repository finds it.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::console;

/// `sheath/<name>` in the user's cache. It may not be there yet.
///
/// # Errors
/// When the user has no cache.
pub fn home(name: &str) -> Result<PathBuf> {
    let absolute = |dir: OsString| Some(PathBuf::from(dir)).filter(|dir| dir.is_absolute());
    let cache = env::var_os("XDG_CACHE_HOME").and_then(absolute);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let cache = cache.context("no home directory to keep built things in: set XDG_CACHE_HOME")?;
    Ok(cache.join("sheath").join(name))
}

/// Does something in a directory of the cache that nobody else may do there at the same time. Whoever comes second finds
/// what the first has made.
///
/// # Errors
/// When the directory cannot be made or locked, or the work fails.
pub fn locked<T>(home: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home)
        .with_context(|| format!("cannot create {}", home.display()))?;
    let lock = File::create(home.join("lock")).context("cannot create the cache's lock")?;
    if lock.try_lock().is_err() {
        console::say(&format!("waiting for another command that fills {} ...", home.display()));
        lock.lock().context("cannot lock the cache")?;
    }
    work()
}

/// Makes a directory that has its name only once it is complete.
///
/// # Errors
/// When it cannot be made, or `fill` fails.
pub fn made(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut partial = dir.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let cannot = || format!("cannot create {}", dir.display());
    if partial.exists() {
        fs::remove_dir_all(partial).with_context(cannot)?;
    }
    fs::create_dir_all(partial).with_context(cannot)?;
    fill(partial)?;
    fs::rename(partial, dir).with_context(cannot)
}

/// A name that stands for what something is made of.
pub fn digest(parts: &[impl AsRef<[u8]>]) -> String {
    let mut digest = Sha256::new();
    for part in parts.iter().map(AsRef::as_ref) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_not_filled_is_not_there() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("x");
        assert!(made(&dir, |_| anyhow::bail!("no")).is_err());
        assert!(!dir.exists());
        made(&dir, |dir| Ok(fs::write(dir.join("a"), "")?)).unwrap();
        assert!(dir.join("a").exists());
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["ab"]).len(), 16);
    }
}
