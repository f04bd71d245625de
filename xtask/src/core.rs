//! Rust's `core` library for the BPF target: where it comes from, and the compiler that belongs to it.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::command;

/// The minor release in the workspace's `rust-version`.
const RUST_MINOR: u32 = 95;

/// The LLVM that bpf-linker is built with. It must not be older than the compiler's.
pub const LLVM_MAJOR: u32 = 22;

pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
pub const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";

/// Where `core` comes from: rustup does not distribute it for this target.
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

    pub fn describe(self) -> &'static str {
        match self {
            Self::Nightly => "nightly, -Z build-std",
            Self::Debian => "Debian's core for BPF",
        }
    }

    /// `cargo build` or `cargo clippy` with the compiler that belongs to this `core`.
    pub fn cargo(self, subcommand: &str) -> Command {
        match self {
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
        }
    }
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
    rust.is_some_and(|minor| minor >= RUST_MINOR) && llvm.is_some_and(|major| major <= LLVM_MAJOR)
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
