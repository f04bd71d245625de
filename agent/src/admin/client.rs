//! The command line's side of the admin socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no agent answers at {}: {}", path.display(), why_silent(.error))]
    NoAgent { path: PathBuf, error: io::Error },
    #[error("the agent's answer breaks off; was it stopped meanwhile?")]
    BrokenAnswer(#[from] serde_json::Error),
    #[error("{0}")]
    Refused(String),
}

fn why_silent(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket; is it running, under this name?".to_owned()
        }
        io::ErrorKind::PermissionDenied => "permission denied; are you root?".to_owned(),
        io::ErrorKind::ConnectionRefused => "it has ended; is it to be started again?".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("it is running, and has said nothing for {} s", PATIENCE.as_secs())
        }
        _ => format!("{error}; is it running?"),
    }
}

/// A reload may have much to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Status,
    Certificates,
    Reload,
}

impl Question {
    /// As it goes over the socket.
    #[must_use]
    pub fn line(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Certificates => "certs",
            Self::Reload => "reload",
        }
    }

    /// `None` for anything that is no question.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let all = [Self::Status, Self::Certificates, Self::Reload];
        all.into_iter().find(|question| question.line() == line)
    }
}

/// Asks an agent.
///
/// # Errors
/// If there is no answer, or if it is that something did not work.
pub fn ask(socket: &Path, question: Question) -> Result<Value, AskError> {
    let ask = || -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{}\n", question.line()).as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| AskError::NoAgent { path: socket.to_owned(), error })?;
    let answer: Value = serde_json::from_slice(&answer)?;
    match answer.get("error").and_then(Value::as_str) {
        Some(reason) => Err(AskError::Refused(reason.to_owned())),
        None => Ok(answer),
    }
}
