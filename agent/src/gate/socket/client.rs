//! The plugin's side of the gate socket. It is a program of its own, without a runtime: everything blocks, with a limit.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};

use super::LONGEST;
use super::messages::{Answer, Request};

/// Pause between attempts to find an agent: one that is replaced is away for a second or two.
const AGAIN: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no agent answers at the gate socket: {}", in_words(.0))]
    NoAgent(io::Error),
    #[error("the agent's answer makes no sense; is it of another version?")]
    Senseless,
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket; does the agent run on this node?".to_owned()
        }
        io::ErrorKind::ConnectionRefused => "it has ended".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "it runs, and does not answer in time".to_owned()
        }
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Asks the agent at `socket`, with a file beside the request. Tries until `deadline` while there is no agent, and once if that
/// is now.
///
/// # Errors
/// If there is no answer by then.
pub fn ask(
    socket: &Path,
    request: &Request,
    file: Option<&impl AsFd>,
    deadline: Instant,
    tries_again: bool,
) -> Result<Answer, AskError> {
    loop {
        let error = match exchange(socket, request, file, deadline) {
            Ok(answer) => {
                let answer: Answer =
                    serde_json::from_slice(&answer).map_err(|_| AskError::Senseless)?;
                return if answer.is_understood() { Ok(answer) } else { Err(AskError::Senseless) };
            }
            Err(error) => error,
        };
        if !tries_again || Instant::now() + AGAIN >= deadline {
            return Err(AskError::NoAgent(error));
        }
        std::thread::sleep(AGAIN);
    }
}

fn exchange(
    path: &Path,
    request: &Request,
    file: Option<&impl AsFd>,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut) } else { Ok(Some(left)) }
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Connecting waits for room in the listener's queue, for as long as writing would.
    socket.set_write_timeout(left()?)?;
    socket.connect(&SockAddr::unix(path)?)?;
    if getsockopt(&socket, PeerCredentials)?.uid() != 0 {
        return Err(io::Error::other("somebody else than root listens there"));
    }
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    send(&socket, &line, file)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.last() != Some(&b'\n') && answer.len() <= LONGEST {
        socket.set_read_timeout(left()?)?;
        match (&socket).read(&mut buffer)? {
            0 => return Err(io::Error::other("the agent has ended before it answered")),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(answer)
}

/// The request fits into the socket's buffer, and goes in one piece.
fn send(socket: &Socket, line: &[u8], file: Option<&impl AsFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&files));
    }
    let sent = sendmsg(socket, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?;
    if sent < line.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}
