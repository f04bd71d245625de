//! Where built programs of the cluster are kept: in the user's cache, by what they are made of, so that every clone of
//! the repository finds them.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::build;
use super::modules::{MODULES, Module};
use crate::cache::{self, digest, made};
use crate::prerequisites::Need;
use crate::{install, workspace};

/// Sees to it that the programs are built, and that `target/tools/cluster` leads to them. Returns their directory.
///
/// # Errors
/// When something is missing that cannot be installed, or the build fails.
pub fn ensure() -> Result<PathBuf> {
    let (home, keys) = (cache::home("cluster")?, keys()?);
    let programs = home.join(of_all(&keys)).join("bin");
    if !programs.exists() {
        cache::locked(&home, || build_once(&home, &keys))?;
    }
    link(&programs)?;
    Ok(programs)
}

/// Builds what is missing.
fn build_once(home: &Path, keys: &[String]) -> Result<()> {
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
}
