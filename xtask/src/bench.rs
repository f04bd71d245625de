//! `cargo xtask bench`: Sheath beside the proxies that people use, under the same load.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::prerequisites::Need;
use crate::{command, console, ebpf, host, install, workspace};

pub fn run(args: &[OsString]) -> Result<()> {
    host::require()?;
    install::ensure(&[Need::Bpf, Need::Scenarios, Need::Interop, Need::Bench])?;
    ebpf::build()?;
    // One by one, so that the agent has the features that its users get, and no others.
    for package in ["sheath", "sheath-bench"] {
        console::step(&format!("build {package}, optimised"), || {
            command::run(command::cargo().args(["build", "--release", "--package", package]))
        })?;
    }
    // Becomes the benchmark instead of starting it: exit code and signals are the benchmark's own.
    let program = workspace::release_program("sheath-bench");
    let mut bench = command::plain(&program);
    bench.args(args).env("SHEATH_BIN", workspace::release_program("sheath"));
    Err(bench.exec()).with_context(|| format!("cannot start {}", program.display()))
}
