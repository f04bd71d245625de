//! A file with the addresses of names, for the next run of the agent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::name::SeenAddresses;
use crate::sys::files::{self, IfThere, ReadError};

/// The file.
#[derive(Debug)]
pub struct Memory(PathBuf);

/// By name.
pub type Remembered = BTreeMap<String, SeenAddresses>;

impl Memory {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Empty if the file is missing or damaged.
    pub fn recall(&self) -> Remembered {
        let told = |problem: &str| {
            tracing::warn!(file = %self.0.display(), problem, "addresses of names are not recalled");
        };
        match files::read(&self.0, files::STATE) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|_| {
                told("it is damaged");
                Remembered::new()
            }),
            Err(ReadError::Missing) => Remembered::new(),
            Err(error) => {
                told(&error.to_string());
                Remembered::new()
            }
        }
    }

    pub fn keep(&self, names: &Remembered) {
        let kept = serde_json::to_vec(names)
            .map_err(std::io::Error::other)
            .and_then(|text| files::write(&self.0, 0o600, &text, IfThere::Replace));
        if let Err(error) = kept {
            tracing::warn!(file = %self.0.display(), %error, "addresses of names are not remembered");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_was_learnt_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::new(directory.path().join("names.json"));
        assert!(memory.recall().is_empty());
        let mut seen = SeenAddresses::default();
        seen.take(["10.0.0.1".parse().unwrap()].into(), SystemTime::now());
        let names = BTreeMap::from([("a.example".to_owned(), seen)]);
        memory.keep(&names);
        assert_eq!(memory.recall(), names);
        std::fs::write(&memory.0, "damaged").unwrap();
        assert!(memory.recall().is_empty());
    }
}
