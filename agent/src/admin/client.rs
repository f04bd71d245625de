//! The command line's side of the admin socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no agent answers at {} ({error}); is it running, and are you root?", path.display())]
    NoAgent { path: PathBuf, error: io::Error },
    #[error("the agent's answer breaks off: {0}")]
    BrokenAnswer(#[from] serde_json::Error),
}

/// Asks an agent for its status.
pub fn ask_status(socket: &Path) -> Result<Value, AskError> {
    let ask = || -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.write_all(b"status\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| AskError::NoAgent { path: socket.to_owned(), error })?;
    Ok(serde_json::from_slice(&answer)?)
}
