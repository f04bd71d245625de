//! Installs what is missing, after saying so.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, bail};

use crate::apt::{self, Package};
use crate::console;
use crate::core::LLVM_MAJOR;
use crate::prerequisites::{DEBIAN_CORE, Need};
use crate::programs::find_program;
use crate::tool::Tool;
use crate::wheel::Wheel;

/// Sees to it that everything a command needs is there.
///
/// # Errors
/// When something is missing and cannot be installed; says what.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing = Missing::find(needs);
    if missing.is_empty() {
        return Ok(());
    }
    missing.require_apt()?;
    console::say(&missing.announce());
    missing.install()?;
    let still = Missing::find(needs);
    if !still.is_empty() {
        bail!("installed, but still not found: {}", still.names().join(", "));
    }
    Ok(())
}

struct Missing {
    packages: Vec<Package>,
    tools: Vec<Tool>,
    wheels: Vec<Wheel>,
}

impl Missing {
    fn find(needs: &[Need]) -> Self {
        let tools = needs.iter().flat_map(|need| need.tools()).copied();
        let tools: Vec<Tool> = tools.filter(Tool::is_missing).collect();
        let wheels = needs.iter().flat_map(|need| need.wheels()).copied();
        let wheels: Vec<Wheel> = wheels.filter(Wheel::is_missing).collect();
        let to_compile = tools.iter().flat_map(|tool| tool.packages);
        let to_fetch = wheels.iter().flat_map(|wheel| wheel.packages);
        let to_run = needs.iter().flat_map(|need| need.packages());
        let packages = to_run.chain(to_compile.chain(to_fetch).copied());
        Self { packages: packages.filter(Package::is_missing).collect(), tools, wheels }
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.tools.is_empty() && self.wheels.is_empty()
    }

    fn names(&self) -> Vec<&str> {
        let packages = self.packages.iter().map(|package| package.name);
        let tools = self.tools.iter().map(|tool| tool.name);
        packages.chain(tools).chain(self.wheels.iter().map(|wheel| wheel.name)).collect()
    }

    fn announce(&self) -> String {
        let mut text = "Missing on this machine, about to be installed:".to_owned();
        if !self.packages.is_empty() {
            text.push_str(&format!("\n  system packages  {}", self.apt_names().join(" ")));
        }
        for tool in &self.tools {
            text.push_str(&format!("\n  cargo tool       {} {}", tool.name, tool.version));
        }
        for wheel in &self.wheels {
            text.push_str(&format!("\n  Python wheel     {} {}", wheel.name, wheel.version));
        }
        text
    }

    fn install(&self) -> Result<()> {
        if !self.packages.is_empty() {
            console::step("install system packages", || apt::install(&self.packages))?;
        }
        for tool in &self.tools {
            console::step(&format!("install {} {}", tool.name, tool.version), || tool.install())?;
        }
        for wheel in &self.wheels {
            console::step(&format!("install {} {}", wheel.name, wheel.version), || {
                wheel.install()
            })?;
        }
        Ok(())
    }

    fn require_apt(&self) -> Result<()> {
        if self.packages.is_empty() {
            return Ok(());
        }
        let names = self.apt_names().join(" ");
        if find_program("apt-get").is_none() {
            bail!(
                "this system has no apt-get; install by hand what these Debian packages hold:\n  {names}{}",
                self.by_hand()
            );
        }
        if !is_root() {
            bail!("installing packages needs root; run as root, or first: apt-get install {names}");
        }
        Ok(())
    }

    /// What to do beside installing packages where these are not Debian's.
    fn by_hand(&self) -> String {
        let mut text = String::new();
        if self.packages.iter().any(|package| DEBIAN_CORE.contains(package)) {
            text.push_str(&format!(
                "\nor, instead of the packages for Rust, a nightly whose LLVM is {LLVM_MAJOR} or older:\
                 \n  rustup toolchain install nightly --component rust-src,clippy"
            ));
        }
        for tool in &self.tools {
            text.push_str(&format!("\nand run:\n  {}", tool.by_hand()));
        }
        for wheel in &self.wheels {
            text.push_str(&format!("\nand run:\n  {}", wheel.by_hand()));
        }
        text
    }

    fn apt_names(&self) -> Vec<&str> {
        self.packages.iter().map(|package| package.name).collect()
    }
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
