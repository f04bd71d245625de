//! `cargo xtask test`: every test, unit and integration.

use std::ffi::OsString;

use anyhow::Result;

use crate::prerequisites::Need;
use crate::{command, console, ebpf, host, install, workspace};

pub fn run(args: &[OsString]) -> Result<()> {
    host::require()?;
    install::ensure(&[Need::Bpf, Need::Scenarios, Need::Interop])?;
    ebpf::build()?;
    build_agent()?;
    console::step("tests", || {
        let mut command = command::cargo();
        command.arg("test").args(args).env("SHEATH_BIN", workspace::debug_program("sheath"));
        command::run(&mut command)
    })
}

/// The agent that the scenarios run.
pub fn build_agent() -> Result<()> {
    console::step("build agent", || {
        command::run(command::cargo().args(["build", "--package", "sheath"]))
    })
}
