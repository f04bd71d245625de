//! The agent as it is given to others.

use std::path::PathBuf;

use anyhow::Result;

use crate::prerequisites::Need;
use crate::{command, console, ebpf, install, workspace};

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
        command.args(["rustc", "--release", "--package", "sheath", "--bin", "sheath"]);
        command::run(command.args(["--", "-Ctarget-feature=+crt-static"]))
    })?;
    Ok(workspace::release_program("sheath"))
}
