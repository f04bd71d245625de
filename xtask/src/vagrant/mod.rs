//! What `deploy/vagrant` needs that Vagrant does not have: a box that needs no network, and a system of its own to try everything
//! in.

mod base;
mod guest;
mod system;

use std::fs;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, ensure};

use crate::{command, console, workspace};

pub use system::ensure as ensure_system;

/// What is done with the hosts.
const TWO_HOSTS: &str = include_str!("two-hosts.sh");

/// Makes the box.
pub fn make_box() -> Result<()> {
    let file = base::ensure()?;
    let file = file.display();
    console::say(&format!(
        "{file}\nadd it:  vagrant box add --force --name sheath {file}\nuse it:  SHEATH_BOX=sheath vagrant up"
    ));
    Ok(())
}

/// Runs `vagrant up` with the box, and the first configuration of README.md on the hosts.
pub fn up() -> Result<()> {
    let packages = workspace::root().join("target/package");
    let is_package = |name: &str| name.starts_with("sheath_") && name.ends_with("_amd64.deb");
    let there = fs::read_dir(&packages).is_ok_and(|files| {
        files.flatten().any(|file| file.file_name().to_str().is_some_and(is_package))
    });
    ensure!(there, "no package in {}: run `cargo xtask package`", packages.display());
    let file = base::ensure()?;
    ensure!(
        file.starts_with(workspace::root()),
        "{} is outside of this clone: unset CARGO_TARGET_DIR",
        file.display()
    );
    let mut enter = command::plain(system::ensure()?);
    enter.arg(workspace::root()).args(["with-libvirtd", "bash", "-c", TWO_HOSTS, "two-hosts"]);
    // Becomes the program instead of starting it: exit code and signals are its own.
    Err(enter.exec()).context("cannot enter the system with Vagrant")
}
