//! Files of Debian packages, for an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::files::Files;

/// Adds the files of every package (`*.deb`) in a directory. They are unpacked beside the packages, once; what their
/// maintainers' scripts would do is not done.
///
/// # Errors
/// When there is no package, or one cannot be unpacked.
pub fn add(packages: &Path, files: &mut Files) -> Result<()> {
    let root = packages.join("root");
    if !root.exists() {
        let partial = packages.join("root.partial");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot create {}", partial.display()))?;
        let all = all(packages)?;
        ensure!(!all.is_empty(), "no Debian package in {}", packages.display());
        for package in all {
            let mut dpkg = Command::new("dpkg-deb");
            let status = dpkg.arg("--extract").arg(&package).arg(&partial).status();
            let status = status.context("cannot start dpkg-deb")?;
            ensure!(status.success(), "cannot unpack {}", package.display());
        }
        fs::rename(&partial, &root).with_context(|| format!("cannot create {}", root.display()))?;
    }
    // Where Debian's own tools would have put it (usrmerge).
    files.add_tree(&root)?;
    if !files.has("/bin/sh") && files.has("/usr/bin/dash") {
        files.add_file("/bin/sh", &root.join("usr/bin/dash"));
    }
    Ok(())
}

fn all(packages: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(packages).with_context(|| format!("cannot read {}", packages.display()))?;
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    all.sort();
    Ok(all)
}
