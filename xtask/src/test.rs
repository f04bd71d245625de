//! `cargo xtask test`: every test, unit and integration; without arguments also a short run of the fuzz targets.

use std::ffi::OsString;

use anyhow::Result;

use crate::prerequisites::Need;
use crate::{command, console, ebpf, fuzz, host, install, workspace};

pub fn run(args: &[OsString]) -> Result<()> {
    host::require()?;
    let everything = args.is_empty();
    let mut needs = vec![Need::Bpf, Need::Scenarios, Need::Interop];
    needs.extend(everything.then_some(Need::Fuzz));
    install::ensure(&needs)?;
    ebpf::build()?;
    build_agent()?;
    console::step("tests", || {
        let mut command = command::cargo();
        command.arg("test").args(args).env("SHEATH_BIN", workspace::debug_program("sheath"));
        command::run(&mut command)
    })?;
    if everything { fuzz::briefly() } else { Ok(()) }
}

/// The agent that the scenarios run.
pub fn build_agent() -> Result<()> {
    console::step("build agent", || {
        command::run(command::cargo().args(["build", "--package", "sheath"]))
    })
}
