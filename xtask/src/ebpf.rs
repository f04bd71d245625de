//! Builds the BPF programs, and runs clippy on them.

use std::env::consts::ARCH;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::prerequisites::{self, Need};
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
    let core = Core::find();
    console::step(&format!("build BPF programs ({})", core.describe()), || {
        command::run(&mut core.cargo("build")?)?;
        let built = workspace::bpf_target_dir().join(TARGET).join(PROFILE).join(PACKAGE);
        copy_if_changed(&built, &workspace::bpf_object())
    })
}

pub fn clippy() -> Result<()> {
    let core = Core::find();
    console::step(&format!("clippy, BPF ({})", core.describe()), || {
        command::run(core.cargo("clippy")?.args(["--", "-D", "warnings"]))
    })
}

/// Where Rust's `core` library for the BPF target comes from: rustup does not distribute it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// Compiled along with the programs, by a nightly that has the `rust-src` component.
    Nightly,
    /// Prebuilt, from Debian's packages, with the compiler it was built by.
    Debian,
}

impl Core {
    pub fn find() -> Self {
        if nightly_fits() { Self::Nightly } else { Self::Debian }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Nightly => "nightly, -Z build-std",
            Self::Debian => "Debian's core for BPF",
        }
    }

    /// `cargo build` or `cargo clippy` for the BPF target.
    fn cargo(self, subcommand: &str) -> Result<Command> {
        let mut command = match self {
            Self::Nightly => {
                let mut command = command::isolated("rustup");
                command.args(["run", "nightly", "cargo", subcommand, "-Zbuild-std=core"]);
                command
            }
            Self::Debian => {
                // Debian's clippy starts the cargo that `CARGO` names.
                let program = if subcommand == "clippy" {
                    DEBIAN_CLIPPY.into()
                } else {
                    command::cargo_program()
                };
                let mut command = command::isolated(program);
                command.env("CARGO", command::cargo_program()).env("RUSTC", DEBIAN_RUSTC);
                // aya-ebpf needs unstable features of the compiler.
                command.env("RUSTC_BOOTSTRAP", "1").arg(subcommand);
                command
            }
        };
        command.args(["--package", PACKAGE, "--target", TARGET, "--profile", PROFILE]);
        command.arg("--target-dir").arg(workspace::bpf_target_dir());
        command.env("CARGO_ENCODED_RUSTFLAGS", rustflags()?);
        Ok(command)
    }
}

pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
pub const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";

/// Flags in cargo's encoded form: separated by the ASCII unit separator, so that paths may contain spaces.
fn rustflags() -> Result<String> {
    let linker = prerequisites::BPF_LINKER.path().context("bpf-linker is not installed")?;
    let flags = [
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // The layout of the host's kernel structures; aya-ebpf's bindings differ by it.
        format!("--cfg=bpf_target_arch=\"{ARCH}\""),
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

/// The nightly can compile `core`, is new enough for the workspace, and makes bitcode that bpf-linker reads.
fn nightly_fits() -> bool {
    let Some(sysroot) = nightly_rustc(&["--print", "sysroot"]) else {
        return false;
    };
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    let Some(version) = nightly_rustc(&["--version", "--verbose"]) else {
        return false;
    };
    core.is_file() && release_fits(&version)
}

fn nightly_rustc(args: &[&str]) -> Option<String> {
    let mut command = command::isolated("rustup");
    command.args(["run", "nightly", "rustc"]).args(args).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Reads the output of `rustc --version --verbose`.
fn release_fits(version: &str) -> bool {
    let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
    let rust = field("release: 1.").and_then(leading_number);
    let llvm = field("LLVM version: ").and_then(leading_number);
    rust.is_some_and(|minor| minor >= prerequisites::RUST_MINOR)
        && llvm.is_some_and(|major| major <= prerequisites::LLVM_MAJOR)
}

fn leading_number(text: &str) -> Option<u32> {
    let (number, _) = text.split_once('.')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nightly_with_a_newer_llvm_than_the_linker_does_not_fit() {
        let version =
            |llvm| format!("rustc\nhost: x\nrelease: 1.97.0-nightly\nLLVM version: {llvm}\n");
        assert!(release_fits(&version("22.1.4")));
        assert!(!release_fits(&version("23.0.0")));
    }

    #[test]
    fn a_nightly_older_than_the_workspace_does_not_fit() {
        assert!(!release_fits("release: 1.80.0-nightly\nLLVM version: 18.1.0\n"));
    }
}
