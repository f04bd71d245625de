//! Builds the BPF programs, and runs clippy on them.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::architecture::Architecture;
use crate::core::Core;
use crate::prerequisites::{BPF_LINKER, Need};
use crate::{command, console, install, workspace};

const PACKAGE: &str = "sheath-ebpf";
const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "bpf";

/// `cargo xtask build-ebpf`.
pub fn run() -> Result<()> {
    install::ensure(&[Need::Bpf])?;
    build()
}

/// Builds the object and puts it where the agent's build script finds it.
pub fn build() -> Result<()> {
    build_into(ARCH, &workspace::bpf_target_dir(), &workspace::bpf_object())
}

/// Builds the object for another kind of machine. Returns it.
///
/// # Errors
/// When the build fails.
pub fn build_for(architecture: Architecture) -> Result<PathBuf> {
    let machine = architecture.machine();
    let object = workspace::cross_bpf_object(machine);
    build_into(machine, &workspace::cross_bpf_target_dir(machine), &object)?;
    Ok(object)
}

fn build_into(machine: &str, target_dir: &Path, object: &Path) -> Result<()> {
    let core = Core::find();
    console::step(&format!("build BPF programs for {machine} ({})", core.describe()), || {
        command::run(&mut cargo(core, "build", machine, target_dir)?)?;
        let built = target_dir.join(TARGET).join(PROFILE).join(PACKAGE);
        copy_if_changed(&built, object)
    })
}

pub fn clippy() -> Result<()> {
    let core = Core::find();
    console::step(&format!("clippy, BPF ({})", core.describe()), || {
        let mut clippy = cargo(core, "clippy", ARCH, &workspace::bpf_target_dir())?;
        command::run(clippy.args(["--", "-D", "warnings"]))
    })
}

/// `cargo build` or `cargo clippy` of the BPF programs for a kind of machine.
fn cargo(core: Core, subcommand: &str, machine: &str, target_dir: &Path) -> Result<Command> {
    let mut command = core.cargo(subcommand);
    command.args(["--package", PACKAGE, "--target", TARGET, "--profile", PROFILE]);
    command.arg("--target-dir").arg(target_dir);
    command.env("CARGO_ENCODED_RUSTFLAGS", rustflags(machine)?);
    Ok(command)
}

/// Flags in cargo's encoded form: separated by the ASCII unit separator, so that paths may contain spaces.
fn rustflags(machine: &str) -> Result<String> {
    let linker = BPF_LINKER.path().context("bpf-linker is not installed")?;
    let flags = [
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // The layout of that machine's kernel structures; aya-ebpf's bindings differ by it.
        format!("--cfg=bpf_target_arch=\"{machine}\""),
    ];
    Ok(flags.join("\x1f"))
}

/// Copies only what changed: a new modification time would rebuild the agent. Replaces the old file in one
/// step, so that a build running beside this one never reads half an object.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let object = fs::read(from).with_context(|| format!("no object at {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == object) {
        return Ok(());
    }
    let fresh = to.with_extension(format!("{}.tmp", std::process::id()));
    to.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&fresh, &object))
        .and_then(|()| fs::rename(&fresh, to))
        .with_context(|| format!("cannot write {}", to.display()))
}
