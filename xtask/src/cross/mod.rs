//! Programs for another kind of machine than this: cargo with a compiler, a standard library and a linker for it.

pub mod library;

use std::process::Command;

use anyhow::Result;

use crate::architecture::Architecture;
use crate::core::DEBIAN_RUSTC;
use crate::{command, workspace};

use library::Library;

/// `cargo <subcommand>` for such machines. What it makes is below [`workspace::cross_target_dir`].
///
/// # Errors
/// When there is no standard library for them.
pub fn cargo(subcommand: &str, architecture: Architecture) -> Result<Command> {
    let mut command = match library::find(architecture)? {
        Library::Own => command::cargo(),
        Library::Debian(sysroot) => {
            let mut command = command::isolated(command::cargo_program());
            command.env("RUSTC", DEBIAN_RUSTC);
            let flag = format!("--sysroot={}", sysroot.display());
            command.env("CARGO_ENCODED_RUSTFLAGS", flag);
            command
        }
    };
    let (target, machine) = (architecture.target(), architecture.machine());
    command.args([subcommand, "--target", &target, "--target-dir"]);
    command.arg(workspace::cross_target_dir(machine));
    // Both as a linker and for the crates that are C.
    let gcc = format!("{machine}-linux-gnu-gcc");
    let target = target.replace('-', "_");
    command.env(format!("CARGO_TARGET_{}_LINKER", target.to_uppercase()), &gcc);
    command.env(format!("CC_{target}"), &gcc);
    // jemalloc is compiled for a size of pages, and works where theirs are no larger. Kernels for arm64 have up to 64 KiB.
    if architecture == Architecture::Arm64 {
        command.env("JEMALLOC_SYS_WITH_LG_PAGE", "16");
    }
    Ok(command)
}
