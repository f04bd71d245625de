//! Rust's standard library for another kind of machine: that of the developer's own toolchain, or Debian's, which belongs to
//! Debian's compiler as the library for BPF programs does.
//!
//! This machine's package manager is not told that there are packages for other machines: an apt of our own fetches this one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::architecture::Architecture;
use crate::repository::Repository;
use crate::{cache, command, console};

/// Debian's packages of the compiler and of its standard library.
const COMPILER: &str = "rustc-web";
const LIBRARY: &str = "libstd-rust-web-dev";

/// Where Debian's compiler has the libraries.
const RUSTLIB: &str = "usr/lib/rustlib";

/// Where a standard library is.
pub enum Library {
    /// In the developer's own toolchain.
    Own,
    /// In a directory for `rustc --sysroot`, for Debian's compiler.
    Debian(PathBuf),
}

/// The developer's own toolchain has a standard library for such machines: `rustup target add`.
pub fn is_own(architecture: Architecture) -> bool {
    let mut rustc = command::plain("rustc");
    rustc.args(["--print", "sysroot"]).stderr(Stdio::null());
    let Ok(sysroot) = command::output(&mut rustc) else { return false };
    Path::new(sysroot.trim()).join("lib/rustlib").join(architecture.target()).join("lib").is_dir()
}

/// Finds one, or fetches Debian's.
///
/// # Errors
/// When Debian has none that is exactly as new as the compiler that is installed.
pub fn find(architecture: Architecture) -> Result<Library> {
    if is_own(architecture) {
        return Ok(Library::Own);
    }
    let version = installed()?;
    let home = cache::home("rust")?;
    let dir = home.join(format!("{}-{}", architecture.debian(), cache::digest(&["1", &version])));
    cache::locked(&home, || {
        if dir.exists() {
            return Ok(());
        }
        let title = format!("Rust's standard library for {}", architecture.debian());
        console::step(&title, || {
            let repository = newest(&home, architecture, &version)?;
            cache::made(&dir, |dir| compose(&repository, architecture, dir))
        })
    })?;
    Ok(Library::Debian(dir))
}

/// The version of the compiler that is installed.
fn installed() -> Result<String> {
    let mut query = command::plain("dpkg-query");
    let version = command::output(query.args(["--show", "--showformat=${Version}", COMPILER]));
    version.with_context(|| format!("{COMPILER} is not installed as a package of Debian"))
}

/// The suite of this machine's release that has the library of this version.
fn newest(home: &Path, architecture: Architecture, version: &str) -> Result<Repository> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("/etc/os-release names no VERSION_CODENAME")?;
    let mut found = Vec::new();
    for suite in [format!("{codename}-security"), codename.to_owned()] {
        let repository = Repository::open(home, &suite, architecture)?;
        match repository.describe(LIBRARY) {
            Ok((there, _)) if source(&there) == source(version) => return Ok(repository),
            Ok((there, _)) => found.push(format!("{there} in {suite}")),
            // Not every suite has one.
            Err(_) => {}
        }
    }
    bail!(
        "{COMPILER} is {version}, and {LIBRARY} for {} is not of that version ({}): update {COMPILER}, or run \
         `rustup target add {}`",
        architecture.debian(),
        if found.is_empty() { "there is none".to_owned() } else { found.join(", ") },
        architecture.target(),
    )
}

/// The version of the sources. A package may be built from them again for one kind of machine alone.
fn source(version: &str) -> &str {
    version.rsplit_once("+b").map_or(version, |(source, build)| {
        if build.bytes().all(|byte| byte.is_ascii_digit()) { source } else { version }
    })
}

/// Makes a directory for `--sysroot`: what the compiler has for this machine, and beside it the library.
fn compose(repository: &Repository, architecture: Architecture, dir: &Path) -> Result<()> {
    let tree = repository.unpack(&[LIBRARY], &dir.join("package"))?;
    let target = architecture.target();
    let rustlib = dir.join("lib/rustlib");
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    fs::create_dir_all(&rustlib)
        .and_then(|()| fs::rename(tree.join(RUSTLIB).join(&target), rustlib.join(&target)))
        .and_then(|()| symlink(Path::new("/").join(RUSTLIB).join(&host), rustlib.join(&host)))
        .and_then(|()| fs::remove_dir_all(dir.join("package")))
        .context("cannot put the library where the compiler looks for it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_was_built_again_is_of_the_same_version() {
        assert_eq!(source("1.96.0+dfsg1-1~deb13u1+b1"), "1.96.0+dfsg1-1~deb13u1");
        assert_eq!(source("1.96.0+dfsg1-1~deb12u2"), "1.96.0+dfsg1-1~deb12u2");
        assert_eq!(source("1.96.0+beta1-1"), "1.96.0+beta1-1");
        assert_ne!(source("1.96.0+dfsg1-1"), source("1.95.0+dfsg1-1"));
    }

    #[test]
    fn a_toolchain_has_the_library_of_the_machine_it_runs_on() {
        let host = [Architecture::Amd64, Architecture::Arm64];
        let host = host.into_iter().find(|architecture| architecture.is_host()).unwrap();
        assert!(is_own(host));
    }
}
