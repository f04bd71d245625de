//! Since when there is no agent. The plugin runs for a moment only, every five seconds: it remembers by a file beside the gate
//! socket, which is empty, and whose time says it.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an agent may be away before the node's network counts as not available: for an upgrade, and for its image to come.
const BRIEF: Duration = Duration::from_secs(60);

/// The file.
pub struct Away(PathBuf);

impl Away {
    #[must_use]
    pub fn of(socket: &Path) -> Self {
        Self(socket.with_extension("away"))
    }

    /// There is an agent.
    pub fn is_back(&self) {
        let _ = fs::remove_file(&self.0);
    }

    /// There is none. True if it has not been away for long: never where none has been since the node started, for then the
    /// directory is not there.
    #[must_use]
    pub fn is_brief(&self) -> bool {
        let Ok(metadata) = fs::symlink_metadata(&self.0) else {
            return OpenOptions::new().write(true).create_new(true).open(&self.0).is_ok();
        };
        // A clock that was set back says nothing.
        let since = metadata.modified().ok().and_then(|since| since.elapsed().ok());
        since.is_some_and(|away| away < BRIEF)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn an_agent_may_be_away_for_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let away = Away::of(&dir.path().join("gate.sock"));
        assert!(away.is_brief() && away.is_brief());
        let file = OpenOptions::new().write(true).open(dir.path().join("gate.away")).unwrap();
        file.set_modified(SystemTime::now() - BRIEF).unwrap();
        assert!(!away.is_brief());
        away.is_back();
        assert!(away.is_brief());
    }

    #[test]
    fn where_no_agent_has_been_there_is_no_patience() {
        assert!(!Away::of(Path::new("/nowhere/gate.sock")).is_brief());
    }
}
