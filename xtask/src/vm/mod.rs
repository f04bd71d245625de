//! `cargo xtask vm`: whole machines under QEMU, with several kernels and a running systemd.
//!
//! Here are made what machines consist of: kernels and a root from Debian's packages, kept in the user's cache, and a disk
//! with what was built. What is done with them is in `tests/src/vm/` and `tests/src/bin/vm/`.

pub mod disk;
pub mod initramfs;
pub mod kernels;
mod programs;
pub mod root;
mod units;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::prerequisites::Need;
use crate::{cache, command, console, ebpf, install, workspace};

use self::kernels::{KERNELS, Kernel};
use self::programs::Agent;

/// The programs of Debian that are in the machines are those of its first architecture.
const ARCH: &str = "x86_64";

/// Where the table of kernels and scenarios is written.
const TABLE: &str = "docs/kernels.md";

#[derive(Args, Default)]
pub struct Vm {
    /// Boot this kernel alone; may be given again. `cargo xtask vm --list` names them
    #[arg(long = "kernel", value_name = "NAME")]
    kernels: Vec<String>,
    /// Name the kernels and the scenarios
    #[arg(long)]
    list: bool,
    /// Look for newer packages of the kernels, and take those
    #[arg(long)]
    update: bool,
    /// Only make what the machines consist of
    #[arg(long)]
    prepare: bool,
    /// Run those scenarios alone that tell most in a few minutes, on the oldest kernel and the newest
    #[arg(long)]
    core: bool,
    /// Write what was seen into docs/kernels.md, also if not everything is run: the rest of it stays
    #[arg(long)]
    write: bool,
    /// Run this script in one machine, in place of scenarios
    #[arg(long, value_name = "TEXT", conflicts_with = "scenarios")]
    script: Option<OsString>,
    /// Scenarios whose names contain one of these; all if none is named
    #[arg(last = true, value_name = "SCENARIO")]
    scenarios: Vec<OsString>,
}

pub fn run(vm: &Vm) -> Result<()> {
    let mut machines = prepare(vm)?;
    if vm.prepare {
        return Ok(());
    }
    // Becomes the program instead of starting it: exit code and signals are its own.
    Err(machines.exec()).context("cannot start vm")
}

/// Whether this machine can run others.
pub fn can_run() -> bool {
    std::env::consts::ARCH == ARCH
}

/// Makes what the machines of [`core`] consist of, if it is not there.
///
/// # Errors
/// When packages cannot be had.
pub fn ensure_images() -> Result<()> {
    images(&kernels::ends(), false).map(drop)
}

/// Runs what tells most in a few minutes, as a part of all tests.
///
/// # Errors
/// When something is missing, or a scenario fails.
pub fn core() -> Result<()> {
    let mut machines = prepare(&Vm { core: true, ..Vm::default() })?;
    console::step("virtual machines", || command::run(&mut machines))
}

/// Sees to it that everything is there. Returns the program that runs machines, with what it is to be told.
fn prepare(vm: &Vm) -> Result<Command> {
    ensure!(can_run(), "machines can be made on {ARCH} alone");
    let is_short = vm.core && vm.kernels.is_empty();
    let kernels =
        if is_short { kernels::ends().into() } else { kernels::named(&KERNELS, &vm.kernels)? };
    let mut needs = vec![Need::Bpf];
    needs.extend((!vm.list).then_some(Need::Vm));
    install::ensure(&needs)?;
    ebpf::build()?;
    let built = programs::build(if vm.core { Agent::AsTested } else { Agent::Optimised })?;
    let mut machines = command::plain(workspace::debug_program("vm"));
    if vm.list {
        console::say("kernels:");
        for kernel in &KERNELS {
            console::say(&format!("  {:8} {} of {}", kernel.name, kernel.package, kernel.suite));
        }
        machines.arg("--list");
        return Ok(machines);
    }
    let (root, dirs) = images(&kernels, vm.update)?;
    machines.arg("--root").arg(root);
    for (kernel, dir) in kernels.iter().zip(dirs) {
        machines.arg("--kernel").arg(kernel.name).arg(dir);
    }
    machines.arg("--programs").arg(console::step("disk with what was built", || built.disk())?);
    let everything =
        vm.kernels.is_empty() && vm.scenarios.is_empty() && vm.script.is_none() && !vm.core;
    if everything || vm.write {
        let columns: Vec<&str> = KERNELS.iter().map(|kernel| kernel.name).collect();
        machines.arg("--table").arg(workspace::root().join(TABLE)).arg(columns.join(","));
    }
    if vm.core {
        machines.arg("--core");
    }
    if let Some(script) = &vm.script {
        machines.arg("--script").arg(script);
    }
    machines.args(&vm.scenarios);
    Ok(machines)
}

/// The disk with the root, and a directory for each kernel.
fn images(kernels: &[&Kernel], update: bool) -> Result<(PathBuf, Vec<PathBuf>)> {
    ensure!(install::is_root(), "only root can unpack Debian's packages with their owners");
    let home = cache::home("vm")?;
    cache::locked(&home, || {
        let root = root::ensure(&home)?;
        let dirs = kernels.iter().map(|kernel| kernels::ensure(&home, kernel, update));
        Ok((root, dirs.collect::<Result<_>>()?))
    })
}
