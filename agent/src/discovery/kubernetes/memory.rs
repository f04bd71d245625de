//! A file with what was known last of this node's pods, for the next run of the agent.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::pods::Known;
use crate::sys::files::{self, IfThere, ReadError};

/// The shape of the file; one of another is not read.
const VERSION: u32 = 1;

/// The file.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
}

#[derive(Serialize)]
struct Kept<'k> {
    version: u32,
    node: &'k str,
    known: &'k Known,
}

#[derive(Deserialize)]
struct Recalled {
    version: u32,
    node: String,
    known: Known,
}

impl Memory {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// `None` if the file is missing, damaged, of another version, or of another node: this one may have been renamed.
    pub fn recall(&self, node: &str) -> Option<Known> {
        let problem = match files::read(&self.path, files::STATE) {
            Ok(text) => match serde_json::from_slice::<Recalled>(&text) {
                Ok(recalled) if recalled.version == VERSION && recalled.node == node => {
                    return Some(recalled.known);
                }
                Ok(_) => "it is of another version or another node".to_owned(),
                Err(_) => "it is damaged".to_owned(),
            },
            Err(ReadError::Missing) => return None,
            Err(error) => error.to_string(),
        };
        tracing::warn!(file = %self.path.display(), problem, "pods not read from the file");
        None
    }

    pub fn keep(&self, node: &str, known: &Known) {
        let kept = serde_json::to_vec(&Kept { version: VERSION, node, known })
            .map_err(std::io::Error::other)
            .and_then(|text| files::write(&self.path, 0o600, &text, IfThere::Replace));
        if let Err(error) = kept {
            tracing::warn!(file = %self.path.display(), %error, "pods not saved");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_recalled_on_the_same_node_only() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::new(directory.path().join("pods.json"));
        assert_eq!(memory.recall("node-a"), None);
        memory.keep("node-a", &Known::default());
        assert_eq!(memory.recall("node-a"), Some(Known::default()));
        assert_eq!(memory.recall("node-b"), None);
        for damaged in ["", "damaged", r#"{"version":2,"node":"node-a","known":{}}"#] {
            std::fs::write(&memory.path, damaged).unwrap();
            assert_eq!(memory.recall("node-a"), None, "{damaged}");
        }
    }
}
