//! `cargo xtask lint`: formatting, clippy, dependencies.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::prerequisites::{CARGO_DENY, Need};
use crate::{command, console, ebpf, install};

pub fn run() -> Result<()> {
    require_component("fmt", "rustfmt")?;
    require_component("clippy", "clippy")?;
    install::ensure(&[Need::Bpf, Need::Lint])?;
    console::step("formatting", formatting)?;
    ebpf::clippy()?;
    // The agent embeds the BPF object, so not even a check of it works without.
    ebpf::build()?;
    console::step("clippy, user space", || {
        clippy(&["--workspace", "--exclude", "sheath-ebpf", "--all-targets"])
    })?;
    // What ships is built alone: the others must not be what turns on a feature that it needs.
    console::step("clippy, the agent alone", || clippy(&["--package", "sheath", "--bins"]))?;
    console::step("licences, bans, sources", || deny_check(&["licenses", "bans", "sources"]))?;
    advisories()
}

fn formatting() -> Result<()> {
    // rustfmt colours its differences wherever TERM is set, terminal or not.
    let colour = if console::colours() { "auto" } else { "never" };
    command::run(command::cargo().args(["fmt", "--all", "--check", "--", "--color", colour]))
}

fn clippy(what: &[&str]) -> Result<()> {
    command::run(command::cargo().arg("clippy").args(what).args(["--", "-D", "warnings"]))
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

fn deny_check(what: &[&str]) -> Result<()> {
    command::run(deny()?.args(["check", "--hide-inclusion-graph"]).args(what))
}

fn deny() -> Result<Command> {
    let program = CARGO_DENY.path().context("cargo-deny is not installed")?;
    let mut command = command::plain(program);
    command.env("GIT_TERMINAL_PROMPT", "0");
    Ok(command)
}
