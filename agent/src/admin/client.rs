//! The command line's side of the admin socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::TIME_LIMIT;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("no agent answers at {}: {}", path.display(), cause(.error))]
    NoAgent { path: PathBuf, error: io::Error },
    #[error("the agent's answer breaks off; was it stopped meanwhile?")]
    BrokenAnswer(#[from] serde_json::Error),
    #[error("{0}")]
    Refused(String),
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket; start the agent, or name the right one with --config or --instance".to_owned()
        }
        io::ErrorKind::PermissionDenied => "permission denied; are you root?".to_owned(),
        io::ErrorKind::ConnectionRefused => "it has ended; start it again".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("it is running, and has not answered for {} s", TIME_LIMIT.as_secs())
        }
        _ => format!("{error}; is it running?"),
    }
}

/// What an agent can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Status,
    Certificates,
    Reload,
    Alive,
    Ready,
    Replace,
}

impl Request {
    const ALL: [Self; 6] =
        [Self::Status, Self::Certificates, Self::Reload, Self::Alive, Self::Ready, Self::Replace];

    /// As it goes over the socket.
    #[must_use]
    pub fn line(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Certificates => "certs",
            Self::Reload => "reload",
            Self::Alive => "alive",
            Self::Ready => "ready",
            Self::Replace => "replace",
        }
    }

    /// `None` for a line that is not a request.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|request| request.line() == line)
    }

    /// Sends the request to the agent at `socket`, and waits for its answer.
    ///
    /// # Errors
    /// If no agent answers, or if the answer is that something did not work.
    pub fn send(self, socket: &Path) -> Result<Value, RequestError> {
        let answer = self
            .exchange(socket)
            .map_err(|error| RequestError::NoAgent { path: socket.to_owned(), error })?;
        let answer: Value = serde_json::from_slice(&answer)?;
        match answer.get("error").and_then(Value::as_str) {
            Some(reason) => Err(RequestError::Refused(reason.to_owned())),
            None => Ok(answer),
        }
    }

    fn exchange(self, socket: &Path) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(TIME_LIMIT))?;
        stream.write_all(format!("{}\n", self.line()).as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_request_that_was_sent_as_it_and_nothing_else_is() {
        for request in Request::ALL {
            assert_eq!(Request::parse(request.line()), Some(request));
        }
        for line in ["", "STATUS", "status ", "statuses", "{}"] {
            assert_eq!(Request::parse(line), None, "{line:?}");
        }
    }
}
