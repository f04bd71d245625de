//! `cargo xtask lint`: formatting, clippy, dependencies.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::prerequisites::{CARGO_DENY, Need};
use crate::{command, console, ebpf, fuzz, install, workspace};

pub fn run() -> Result<()> {
    require_component("fmt", "rustfmt")?;
    require_component("clippy", "clippy")?;
    install::ensure(&[Need::Bpf, Need::Lint])?;
    fuzz::lock()?;
    console::step("formatting", || {
        formatting(&["--all"])?;
        formatting(&["--manifest-path", FUZZ_MANIFEST])
    })?;
    ebpf::clippy()?;
    // The agent embeds the BPF object, so not even a check of it works without.
    ebpf::build()?;
    console::step("clippy, user space", || {
        command::run(command::cargo().args(["clippy", "--all-targets", "--", "-D", "warnings"]))
    })?;
    console::step("clippy, fuzz targets", || {
        let mut command = command::cargo();
        command.args(["clippy", "--manifest-path", FUZZ_MANIFEST, "--bins", "--target-dir"]);
        command::run(command.arg(workspace::target_dir()).args(["--", "-D", "warnings"]))
    })?;
    console::step("licences, bans, sources", || deny_check(&["licenses", "bans", "sources"]))?;
    advisories()
}

const FUZZ_MANIFEST: &str = "fuzz/Cargo.toml";

fn formatting(packages: &[&str]) -> Result<()> {
    // rustfmt colours its differences wherever TERM is set, terminal or not.
    let colour = if console::colours() { "auto" } else { "never" };
    let mut command = command::cargo();
    command::run(command.arg("fmt").args(packages).args(["--check", "--", "--color", colour]))
}

/// rustfmt and clippy belong to the toolchain; a minimal one lacks them.
fn require_component(subcommand: &str, component: &str) -> Result<()> {
    let there = command::cargo().args([subcommand, "--version"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        bail!("this toolchain has no {component}: rustup component add {component}");
    }
    Ok(())
}

/// Checks the dependencies against RustSec's database, which is fetched with git. Where it cannot be fetched
/// there is nothing to check against, and the summary must say so.
fn advisories() -> Result<()> {
    console::say("==> fetch the RustSec advisory database");
    if !deny()?.args(["fetch", "db"]).status()?.success() {
        console::warn(
            "advisories were NOT checked: the RustSec database could not be fetched (see above). \
             Everything else passed.",
        );
        return Ok(());
    }
    console::step("advisories", || deny_check(&["--disable-fetch", "advisories"]))
}

/// Checks the dependencies of both workspaces.
fn deny_check(what: &[&str]) -> Result<()> {
    for manifest in ["Cargo.toml", FUZZ_MANIFEST] {
        let mut command = deny()?;
        command.args(["--manifest-path", manifest, "check"]);
        command::run(command.arg("--hide-inclusion-graph").args(what))?;
    }
    Ok(())
}

fn deny() -> Result<Command> {
    let program = CARGO_DENY.path().context("cargo-deny is not installed")?;
    let mut command = command::plain(program);
    command.env("GIT_TERMINAL_PROMPT", "0");
    Ok(command)
}
