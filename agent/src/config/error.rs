//! What can be wrong with a configuration file, said in one line.

use std::path::{Path, PathBuf};

use super::words;
use crate::sys::files::ReadError;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: ReadError },
    /// The document does not have the documented form.
    #[error("{}:{line}: {reason}", path.display())]
    Malformed { path: PathBuf, line: u64, reason: String },
    /// The document has the form, but what it says does not fit together.
    #[error("{}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
}

impl ConfigError {
    pub(super) fn invalid(path: &Path, reason: &str) -> Self {
        Self::Invalid { path: path.to_owned(), reason: printable(reason) }
    }

    pub(super) fn malformed(path: &Path, error: &serde_saphyr::Error) -> Self {
        tracing::debug!(%error, "configuration");
        let error = error.without_snippet();
        Self::Malformed {
            path: path.to_owned(),
            line: error.location().map_or(1, |location| location.line()),
            reason: printable(&words::reason(error)),
        }
    }
}

/// Escapes control characters: a quote from the file may hold anything, and a message is one line.
fn printable(text: &str) -> String {
    let escape =
        |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(escape).collect()
}
