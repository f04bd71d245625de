//! A file with the addresses of names, for the next run of the agent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::name::SeenAddresses;
use crate::discovery::state_file::StateFile;

/// How old the times in the file may get while a name resolves to the same addresses.
const FRESH: Duration = Duration::from_secs(5 * 60);

/// The file.
#[derive(Debug)]
pub struct Memory {
    file: StateFile,
    /// When the file was last written by this agent.
    written: Option<Instant>,
}

/// By name.
pub type Remembered = BTreeMap<String, SeenAddresses>;

impl Memory {
    pub fn new(path: PathBuf) -> Self {
        Self { file: StateFile::new(path, "addresses of DNS names"), written: None }
    }

    /// Empty if the file is missing or damaged.
    pub fn recall(&self) -> Remembered {
        self.file.recall("", |_| true).unwrap_or_default()
    }

    /// True if the file is about to become useless: an address lingers for an hour from the time that the file has for it.
    pub fn is_outdated(&self, now: Instant) -> bool {
        self.written.is_none_or(|written| now.duration_since(written) >= FRESH)
    }

    #[cfg(test)]
    pub fn outdate(&mut self) {
        self.written = None;
    }

    pub fn keep(&mut self, names: &Remembered) {
        self.written = Some(Instant::now());
        self.file.keep(names);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_was_learnt_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::new(directory.path().join("names.json"));
        assert!(memory.recall().is_empty());
        let mut seen = SeenAddresses::default();
        seen.take(["10.0.0.1".parse().unwrap()].into(), SystemTime::now());
        let names = BTreeMap::from([("a.example".to_owned(), seen)]);
        memory.keep(&names);
        assert_eq!(memory.recall(), names);
        std::fs::write(memory.file.path(), "damaged").unwrap();
        assert!(memory.recall().is_empty());
    }

    #[test]
    fn what_is_remembered_is_written_again_before_it_is_useless() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::new(directory.path().join("names.json"));
        assert!(memory.is_outdated(Instant::now()));
        memory.keep(&Remembered::new());
        let now = Instant::now();
        assert!(!memory.is_outdated(now) && memory.is_outdated(now + FRESH));
    }
}
