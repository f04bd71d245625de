//! Debian packages for images: fetched with everything that they depend on, as if on an empty system.

use std::fs;
use std::io::stderr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::{command, workspace};

/// Fetches packages into a directory below `target/`, one for each choice of packages. Returns it.
///
/// # Errors
/// When a name is none of a package, or apt cannot fetch it.
pub fn fetch(packages: &[String]) -> Result<PathBuf> {
    for name in packages {
        // Debian Policy 5.6.1.
        let is_name = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
        ensure!(
            is_name && name.starts_with(|c: char| c.is_ascii_alphanumeric()),
            "`{name}` names no package"
        );
    }
    let dir = workspace::target_dir().join("debian").join(packages.join("_"));
    let done = dir.join("complete");
    if done.exists() {
        return Ok(dir);
    }
    fs::create_dir_all(dir.join("partial"))
        .with_context(|| format!("cannot create {}", dir.display()))?;
    let mut apt = command::plain("apt-get");
    apt.args(["-qq", "install", "--yes", "--download-only", "--no-install-recommends"]);
    // Nothing is installed yet, so everything is needed; and nothing of this system is read or changed but its lists.
    apt.args(["-o", "Dir::State::status=/dev/null", "-o", "Debug::NoLocking=true"]);
    apt.arg("-o").arg(format!("Dir::Cache::archives={}", dir.display()));
    apt.args(["-o", "APT::Sandbox::User=root"]).args(packages);
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(stderr());
    command::run(&mut apt).context("if apt knows no such package, run `apt-get update` first")?;
    fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
    Ok(dir)
}
