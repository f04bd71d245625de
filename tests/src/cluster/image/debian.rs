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
    files.add_tree(&root)?;
    // dash's own script would have done it.
    for shell in ["bin/dash", "usr/bin/dash"] {
        if !files.has("bin/sh") && root.join(shell).exists() {
            files.add_file("/bin/sh", &root.join(shell));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_package_are_there_and_it_has_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("package");
        fs::create_dir_all(package.join("DEBIAN")).unwrap();
        fs::create_dir_all(package.join("bin")).unwrap();
        let control =
            "Package: dash\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: none\n";
        fs::write(package.join("DEBIAN/control"), control).unwrap();
        fs::write(package.join("bin/dash"), "a shell").unwrap();
        let mut dpkg = Command::new("dpkg-deb");
        let built = dpkg.arg("--build").arg(&package).arg(dir.path().join("dash.deb")).output();
        assert!(built.unwrap().status.success());
        // Unpacked by the first, found by the second.
        for _ in 0..2 {
            let mut files = Files::default();
            add(dir.path(), &mut files).unwrap();
            assert!(files.has("bin/dash") && files.has("bin/sh"));
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(add(empty.path(), &mut Files::default()).is_err());
    }
}
