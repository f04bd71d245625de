//! Programs, started afresh.
//!
//! xtask is itself a child of cargo, and often of rustup. What those put into its environment describes that
//! run (compiler, flags, library path, package), and would quietly change the next one.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::programs::search_path;
use crate::{console, workspace};

/// Cargo for the user-space crates: the one that runs xtask, and the developer's own settings (`RUSTFLAGS`,
/// `CARGO_TARGET_DIR`) hold.
pub fn cargo() -> Command {
    let mut command = plain(cargo_program());
    // The agent embeds the object that xtask built, not another.
    command.env_remove("SHEATH_BPF_OBJECT");
    command
}

/// Any other program, in the environment that xtask was started from.
pub fn plain(program: impl AsRef<OsStr>) -> Command {
    command(program, |name| !describes_outer_package(name))
}

/// A build for another target with another compiler: of cargo's and rustup's settings only those about
/// network, place and output are kept.
pub fn isolated(program: impl AsRef<OsStr>) -> Command {
    command(program, |name| !configures_build(name))
}

/// The cargo that runs xtask, without a toolchain manager in between.
pub fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started, or ends with anything but success.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", name(command)))?;
    ended_well(command, status)
}

/// Runs a command to its end, and returns what it has written to its standard output.
///
/// # Errors
/// As [`run`], and if that is not UTF-8.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start {}", name(command)))?;
    ended_well(command, output.status)?;
    Ok(String::from_utf8(output.stdout)?)
}

fn ended_well(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        let first = command.get_args().next().unwrap_or_default();
        bail!("`{} {}` failed ({status})", name(command), first.display());
    }
    Ok(())
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or_default().display().to_string()
}

fn command(program: impl AsRef<OsStr>, keep: impl Fn(&str) -> bool) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root()).env("PATH", search_path());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| !keep(name)) {
            command.env_remove(name);
        }
    }
    if !console::colours() && env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "never");
    }
    command
}

/// Set by `cargo run` for the program it runs.
fn describes_outer_package(name: &str) -> bool {
    const PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    name == "LD_LIBRARY_PATH" || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn configures_build(name: &str) -> bool {
    const KEPT: [&str; 11] = [
        "CARGO_BUILD_JOBS",
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_INSTALL_ROOT",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_HOME",
        "RUST_BACKTRACE",
    ];
    let settings = name.starts_with("CARGO") || name.starts_with("RUST");
    name == "LD_LIBRARY_PATH" || settings && !KEPT.iter().any(|kept| name.starts_with(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_isolated_build_inherits_no_compiler_and_no_flags() {
        for name in [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_PROFILE_RELEASE_DEBUG",
            "CARGO_TARGET_DIR",
            "LD_LIBRARY_PATH",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(configures_build(name), "{name}");
        }
    }

    #[test]
    fn an_isolated_build_still_finds_its_crates() {
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "HTTPS_PROXY", "PATH", "RUSTUP_HOME"] {
            assert!(!configures_build(name), "{name}");
        }
    }
}
