//! Programs that cargo compiles from its registry and installs beside itself.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::apt::Package;
use crate::command;
use crate::programs::{existing, find_program};

/// A program in cargo's registry.
#[derive(Clone, Copy)]
pub struct Tool {
    pub name: &'static str,
    /// The version to install, and the oldest one accepted.
    pub version: &'static str,
    pub features: &'static [&'static str],
    /// Packages that are needed to compile it.
    pub packages: &'static [Package],
    /// The environment that it is compiled in.
    pub environment: Option<(&'static str, &'static str)>,
}

impl Tool {
    /// Where the tool is: where cargo installs to, or on the PATH.
    pub fn path(&self) -> Option<PathBuf> {
        let installed = cargo_bin_dir().and_then(|dir| existing(dir.join(self.name)));
        installed.or_else(|| find_program(self.name))
    }

    pub fn is_missing(&self) -> bool {
        let version =
            self.path().and_then(|path| Command::new(path).arg("--version").output().ok());
        let version = version.and_then(|output| String::from_utf8(output.stdout).ok());
        version.is_none_or(|version| numbers(&version) < numbers(self.version))
    }

    /// Compiles and installs it.
    ///
    /// # Errors
    /// When cargo fails.
    pub fn install(&self) -> Result<()> {
        let mut command = command::cargo();
        // Its flags are the workspace's business, not the tool's.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
        command.args(self.cargo_arguments()).envs(self.environment);
        command::run(&mut command)
    }

    /// How to do it by hand.
    pub fn by_hand(&self) -> String {
        let environment =
            self.environment.map(|(name, value)| format!("{name}={value} ")).unwrap_or_default();
        format!("{environment}cargo {}", self.cargo_arguments().join(" "))
    }

    fn cargo_arguments(&self) -> Vec<&'static str> {
        // By force, over one that is too old or does not run.
        let mut args = vec!["install", self.name, "--force", "--locked", "--version", self.version];
        args.extend(self.features);
        args
    }
}

/// The first dotted number in a text: `bpf-linker 0.13.0` is `[0, 13, 0]`.
fn numbers(text: &str) -> Vec<u32> {
    let version =
        text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    version.unwrap_or_default().split('.').map_while(|part| part.parse().ok()).collect()
}

fn cargo_bin_dir() -> Option<PathBuf> {
    let home = || env::home_dir().map(|home| home.join(".cargo").into_os_string());
    let dir = env::var_os("CARGO_INSTALL_ROOT").or_else(|| env::var_os("CARGO_HOME"));
    dir.or_else(home).map(|dir| Path::new(&dir).join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("cargo-deny 0.9.0") < numbers("0.20.2"));
        assert!(numbers("bpf-linker 0.13.0") >= numbers("0.13.0"));
        assert!(numbers("no version here") < numbers("0.1.0"));
    }
}
