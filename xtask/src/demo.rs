//! `cargo xtask demo`: two nodes on this machine, real applications, and what the wire saw.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::prerequisites::Need;
use crate::{command, console, ebpf, host, install, workspace};

pub fn run(args: &[OsString]) -> Result<()> {
    host::require()?;
    install::ensure(&[Need::Bpf, Need::Scenarios])?;
    ebpf::build()?;
    console::step("build agent and demo", || {
        let packages = ["--package", "sheath", "--package", "sheath-tests"];
        command::run(command::cargo().arg("build").args(packages).arg("--bins"))
    })?;
    // Becomes the demo instead of starting it: exit code and signals are the demo's own.
    let program = workspace::debug_program("demo");
    let mut demo = command::plain(&program);
    demo.args(args).env("SHEATH_BIN", workspace::debug_program("sheath"));
    Err(demo.exec()).with_context(|| format!("cannot start {}", program.display()))
}
