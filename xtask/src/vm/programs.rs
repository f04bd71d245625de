//! The disk with what was built here: the agent, the scenarios and what they start, laid out as in this clone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;

use super::disk::{self, Use};
use crate::{command, console, package, workspace};

/// The agent that machines get.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// An emulated processor takes ten times as long for everything.
    Optimised,
    /// Built with the tests in any case.
    AsTested,
}

/// What was built.
pub struct Built {
    agent: PathBuf,
    scenarios: PathBuf,
}

/// Builds agent, scenarios and the programs of the tests.
///
/// # Errors
/// When the build fails.
pub fn build(agent: Agent) -> Result<Built> {
    if agent == Agent::Optimised {
        console::step("build sheath, optimised", || {
            command::run(command::cargo().args(["build", "--release", "--package", "sheath"]))
        })?;
    }
    let agent = match agent {
        Agent::Optimised => workspace::release_program("sheath"),
        Agent::AsTested => workspace::debug_program("sheath"),
    };
    console::step("build scenarios", || {
        let mut command = command::cargo();
        // Of no package alone, or dependencies would be compiled once more, with fewer features.
        command.args(["test", "--no-run", "--test", "scenarios"]);
        command.arg("--message-format=json-render-diagnostics");
        let told = command::output(command.stdout(Stdio::piped()))?;
        let scenarios = told.lines().find_map(executable).context("cargo names no scenarios")?;
        Ok(Built { agent, scenarios })
    })
}

/// The scenarios' program, in the message that tells of it.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_it =
        message["reason"] == "compiler-artifact" && message["target"]["name"] == "scenarios";
    is_it.then(|| message["executable"].as_str().map(PathBuf::from))?
}

impl Built {
    /// Writes the disk. Returns it.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn disk(&self) -> Result<PathBuf> {
        let dir = workspace::target_dir().join("vm");
        let tree = dir.join("programs");
        if tree.exists() {
            fs::remove_dir_all(&tree).context("cannot remove the old programs")?;
        }
        let clone = tree.join("clone");
        let (debug, agent) = (clone.join("target/debug"), tree.join("sheath"));
        let deps = debug.join("deps");
        fs::create_dir_all(&deps).with_context(|| format!("cannot create {}", deps.display()))?;
        let scenarios = "target/debug/deps/scenarios";
        strip(&self.scenarios, &clone.join(scenarios))?;
        strip(&workspace::debug_program("probe"), &debug.join("probe"))?;
        strip(&workspace::debug_program("guest"), &tree.join("guest"))?;
        strip(&self.agent, &agent)?;
        package::quickly(agent, clone.join("target/package"))?;
        let disk = dir.join("programs.ext4");
        disk::write(&tree, &disk, Use::Data)?;
        fs::remove_dir_all(&tree).context("cannot remove the programs")?;
        Ok(disk)
    }
}

/// Copies a program without what only debuggers read, most of its size.
fn strip(program: &Path, to: &Path) -> Result<()> {
    command::run(command::plain("strip").arg("--strip-debug").arg("-o").arg(to).arg(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenarios_program_is_read_from_cargos_messages() {
        let message =
            r#"{"reason":"compiler-artifact","target":{"name":"scenarios"},"executable":"/x/y"}"#;
        assert_eq!(executable(message), Some(PathBuf::from("/x/y")));
        for other in [
            r#"{"reason":"compiler-artifact","target":{"name":"probe"},"executable":"/x/y"}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "",
        ] {
            assert_eq!(executable(other), None, "{other}");
        }
    }
}
