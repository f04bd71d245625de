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
use super::modules::{MODULES, Module};
use crate::prerequisites::Need;
use crate::{console, install, workspace};

/// Sees to it that the programs are built, and that `target/tools/cluster` leads to them. Returns their directory.
///
/// # Errors
/// When something is missing that cannot be installed, or the build fails.
pub fn ensure() -> Result<PathBuf> {
    let (home, keys) = (home()?, keys()?);
    let programs = home.join(of_all(&keys)).join("bin");
    if !programs.exists() {
        build_once(&home, &keys)?;
    }
    link(&programs)?;
    Ok(programs)
}

/// Builds under a lock. Whoever comes second finds what the first has built.
fn build_once(home: &Path, keys: &[String]) -> Result<()> {
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
    let all = home.join(of_all(keys)).join("bin");
    if all.exists() {
        return Ok(());
    }
    install::ensure(&[Need::Cluster])?;
    let dir = |module: &Module, key: &str| home.join(format!("{}-{key}", module.name));
    let missing: Vec<_> =
        MODULES.iter().zip(keys).filter(|(module, key)| !dir(module, key).exists()).collect();
    let modules: Vec<_> = missing.iter().map(|(module, _)| *module).collect();
    build::announce(&modules, home);
    for (number, (module, key)) in missing.iter().enumerate() {
        made(&dir(module, key), |bin| build::one(module, (number + 1, missing.len()), bin))?;
    }
    // Together in one place, and each of them once.
    made(&all, |all| {
        for (module, key) in MODULES.iter().zip(keys) {
            for (_, program) in module.programs {
                fs::hard_link(dir(module, key).join(program), all.join(program))
                    .with_context(|| format!("cannot link {program}"))?;
            }
        }
        Ok(())
    })
}

/// Makes a directory that has its name only once it is complete.
fn made(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = dir.with_extension("partial");
    let cannot = || format!("cannot create {}", dir.display());
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(cannot)?;
    }
    fs::create_dir_all(&partial).with_context(cannot)?;
    fill(&partial)?;
    fs::rename(&partial, dir).with_context(cannot)
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

/// For each module what stands for its programs.
fn keys() -> Result<Vec<String>> {
    MODULES.iter().map(key).collect()
}

/// Stands for what a module's programs are made of: its files, flags and architecture. Not for the Go release: any that is
/// accepted will do.
fn key(module: &Module) -> Result<String> {
    let mut parts = vec![env::consts::ARCH.as_bytes().to_vec()];
    for name in ["go.mod", "go.sum", "main.go"] {
        let path = module.dir().join(name);
        parts.push(match fs::read(&path) {
            // Only our own have a source, and only others have sums.
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        });
    }
    parts.extend(build::arguments(module)?.into_iter().map(String::into_bytes));
    for (path, program) in module.programs {
        parts.extend([path.as_bytes().to_vec(), program.as_bytes().to_vec()]);
    }
    Ok(digest(&parts))
}

/// Stands for all programs.
fn of_all(keys: &[String]) -> String {
    digest(keys)
}

fn digest(parts: &[impl AsRef<[u8]>]) -> String {
    let mut digest = Sha256::new();
    for part in parts.iter().map(AsRef::as_ref) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
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
        let keys = keys().unwrap();
        assert!(keys.iter().all(|key| key.len() == 16), "{keys:?}");
        assert_eq!(keys, super::keys().unwrap());
        assert_ne!(of_all(&keys), of_all(&keys[1..]));
    }

    #[test]
    fn a_directory_that_was_not_filled_is_not_there() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("x");
        assert!(made(&dir, |_| anyhow::bail!("no")).is_err());
        assert!(!dir.exists());
        made(&dir, |dir| Ok(fs::write(dir.join("a"), "")?)).unwrap();
        assert!(dir.join("a").exists());
    }
}
