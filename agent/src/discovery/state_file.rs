//! A file with what a discovery knows, for the next run of the agent.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::files::{self, IfThere, ReadError};

/// Another agent keeps the files now.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Writes no file any more: a successor does.
pub fn stop_keeping() {
    IS_OVER.store(true, Ordering::Relaxed);
}

/// The file. Whoever cannot read or write it goes on without, and the log says why.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// What is in it, for the log.
    what: &'static str,
}

impl StateFile {
    #[must_use]
    pub fn new(path: PathBuf, what: &'static str) -> Self {
        Self { path, what }
    }

    /// `None` if the file is missing, damaged, or not one that `is_right`, of which `wrong` says what is wrong.
    pub fn recall<T: DeserializeOwned>(
        &self,
        wrong: &str,
        is_right: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let problem = match files::read(&self.path, files::STATE) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(recalled) if is_right(&recalled) => return Some(recalled),
                Ok(_) => wrong.to_owned(),
                Err(_) => "it is damaged".to_owned(),
            },
            Err(ReadError::Missing) => return None,
            Err(error) => error.to_string(),
        };
        let file = self.path.display();
        tracing::warn!(%file, problem, "{} not read from the file", self.what);
        None
    }

    pub fn keep(&self, content: &impl Serialize) {
        if IS_OVER.load(Ordering::Relaxed) {
            return;
        }
        let kept = serde_json::to_vec(content)
            .map_err(io::Error::other)
            .and_then(|text| files::write(&self.path, 0o600, &text, IfThere::Replace));
        if let Err(error) = kept {
            tracing::warn!(file = %self.path.display(), %error, "{} not saved", self.what);
        }
    }

    #[cfg(test)]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}
