//! A file with what was known last of this node's pods, for the next run of the agent.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::pods::Known;
use crate::discovery::state_file::StateFile;

/// The shape of the file; one of another is not read.
const VERSION: u32 = 1;

/// The file.
#[derive(Debug)]
pub struct Memory {
    file: StateFile,
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
        Self { file: StateFile::new(path, "pods") }
    }

    /// `None` if the file is missing, damaged, of another version, or of another node: this one may have been renamed.
    pub fn recall(&self, node: &str) -> Option<Known> {
        let is_right = |kept: &Recalled| kept.version == VERSION && kept.node == node;
        let recalled = self.file.recall("it is of another version or another node", is_right);
        recalled.map(|recalled| recalled.known)
    }

    pub fn keep(&self, node: &str, known: &Known) {
        self.file.keep(&Kept { version: VERSION, node, known });
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
            std::fs::write(memory.file.path(), damaged).unwrap();
            assert_eq!(memory.recall("node-a"), None, "{damaged}");
        }
    }
}
