//! The instance: names everything on a node that belongs to one agent.

use std::env;
use std::path::{Path, PathBuf};

use super::limits::{self, SocketPathTooLong};
use super::{ConfigError, raw, read_yaml};
use crate::sys::files;

/// Directory of the admin socket and the lock, unless `runDir` says otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/sheath";
/// Name of the instance, unless `instance` says otherwise.
pub const DEFAULT_INSTANCE: &str = "default";

/// What `instance` is if nobody says it: what the environment says, for containers that share one configuration file.
#[must_use]
pub fn default_instance() -> String {
    env::var("SHEATH_INSTANCE").unwrap_or_else(|_| DEFAULT_INSTANCE.to_owned())
}

/// Name and run directory of an agent. Pins, lock and admin socket are named by them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub name: String,
    run_dir: PathBuf,
}

/// Why there can be no such instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstanceError {
    #[error("instance `{0}` must be 1 to 64 letters, digits, `-` or `_`")]
    Name(String),
    #[error("runDir is too long: {0}")]
    RunDir(#[from] SocketPathTooLong),
}

impl Instance {
    /// # Errors
    /// If the name has characters other than letters, digits, `-` and `_`, or if `run_dir` is too long.
    pub fn new(name: &str, run_dir: &Path) -> Result<Self, InstanceError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return Err(InstanceError::Name(name.to_owned()));
        }
        let instance = Self { name: name.to_owned(), run_dir: run_dir.to_owned() };
        // The longest of their names.
        limits::check_socket(&instance.handover_socket())?;
        Ok(instance)
    }

    /// The instance of a configuration file, even if the rest of the file is invalid: the commands that talk to a running
    /// agent must find it.
    ///
    /// # Errors
    /// If the file cannot be read, or its instance is invalid.
    pub fn of_file(path: &Path) -> Result<Self, ConfigError> {
        let text = files::read_text(path, files::CONFIGURATION)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        let names: raw::InstanceKeys = read_yaml(&text, path)?;
        Self::new(&names.instance, &names.run_dir)
            .map_err(|error| ConfigError::invalid(path, error))
    }

    /// Directory of the instance's runtime files.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.run_dir.join(&self.name)
    }

    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.directory().join("lock")
    }

    /// File with the addresses that DNS names have resolved to.
    #[must_use]
    pub fn names(&self) -> PathBuf {
        self.directory().join("names.json")
    }

    /// File with what was known last of this node's pods.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.directory().join("pods.json")
    }

    /// File with the controller's directory as it was known last.
    #[must_use]
    pub fn directory_state(&self) -> PathBuf {
        self.directory().join("directory.state")
    }

    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.directory().join("admin.sock")
    }

    /// Where an agent that is to take over calls.
    #[must_use]
    pub fn handover_socket(&self) -> PathBuf {
        self.directory().join("handover.sock")
    }

    /// Where programs that the container runtime runs ask the agent.
    #[must_use]
    pub fn gate_socket(&self) -> PathBuf {
        self.directory().join("gate.sock")
    }
}

#[cfg(test)]
mod tests;
