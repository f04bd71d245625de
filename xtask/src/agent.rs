//! The agent as it is given to others.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::architecture::Architecture;
use crate::prerequisites::Need;
use crate::{command, console, cross, ebpf, install, objects, workspace};

/// Builds it optimised and static: it runs on any host with a kernel that it can work with, whatever C library is there. On a
/// node of a cluster it is also the plugin of CNI, which runs outside of any container.
///
/// # Errors
/// When something that it is built with is missing, or the build fails.
pub fn build_static() -> Result<PathBuf> {
    install::ensure(&[Need::Bpf])?;
    ebpf::build()?;
    console::step("build sheath, optimised and static", || {
        let mut command = command::cargo();
        build(command.arg("rustc"))
    })?;
    Ok(workspace::release_program("sheath"))
}

/// The same for arm64, whatever machine this is.
///
/// # Errors
/// As [`build_static`], and when what the BPF programs share with the agent is not the same for both.
pub fn build_static_arm64() -> Result<PathBuf> {
    let architecture = Architecture::Arm64;
    if architecture.is_host() {
        return build_static();
    }
    install::ensure(&[Need::Bpf, Need::Arm64])?;
    ebpf::build()?;
    let object = ebpf::build_for(architecture)?;
    objects::compare(&workspace::bpf_object(), &object)?;
    let title = format!("build sheath for {}, optimised and static", architecture.debian());
    let mut command = cross::cargo("rustc", architecture)?;
    command.env("SHEATH_BPF_OBJECT", object);
    console::step(&title, || build(&mut command))?;
    let dir = workspace::cross_target_dir(architecture.machine());
    Ok(dir.join(architecture.target()).join("release/sheath"))
}

/// `cargo rustc`, as far as it is said which cargo and for what.
fn build(command: &mut Command) -> Result<()> {
    command.args(["--release", "--package", "sheath", "--bin", "sheath"]);
    command::run(command.args(["--", "-Ctarget-feature=+crt-static"]))
}
