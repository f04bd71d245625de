//! A connection between two agents of an instance: messages with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::message::{HEADER, Header, Malformed, Message};

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("it has ended")]
    Ended,
    #[error("it has not answered within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it has said something else than it should: {0}")]
    Unexpected(String),
    #[error("it refuses: {0}")]
    Refused(String),
    /// One at a time.
    #[error("another agent is taking over already")]
    Busy,
    #[error("the connection to it is broken: {0}")]
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

/// A message, and what came with it: as many descriptors as belong to it.
#[derive(Debug)]
pub struct Received {
    pub message: Message,
    pub descriptors: Vec<OwnedFd>,
}

/// A connection whose other end is root's.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// Process id of the other end; zero if it has none here.
    peer: i32,
}

impl Connection {
    /// # Errors
    /// `PermissionDenied` if the other end is somebody else's.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        // The mode of the socket's file says the same; this holds even if the mode was changed.
        let peer = stream.peer_cred()?;
        if peer.uid() != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Self { stream, peer: peer.pid().unwrap_or_default() })
    }

    pub fn peer(&self) -> i32 {
        self.peer
    }

    /// Says something, with copies of descriptors. It must be waited for: half a message is the end of the connection.
    ///
    /// # Errors
    /// If the other end does not take it within `limit`, or is gone.
    pub async fn send(
        &self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<(), Broken> {
        let bytes = message.encode()?;
        let sending = async {
            let (mut rest, mut descriptors) = (&bytes[..], descriptors);
            while !rest.is_empty() {
                let send = || send_some(&self.stream, rest, descriptors);
                let count = self.stream.async_io(Interest::WRITABLE, send).await?;
                // They have gone with the first byte.
                (rest, descriptors) = (&rest[count..], &[]);
            }
            Ok::<(), Broken>(())
        };
        timeout(limit, sending).await.map_err(|_| Broken::Silent(limit))?
    }

    /// Waits for the next message. It must be waited for: half a message is the end of the connection.
    ///
    /// # Errors
    /// If the other end is gone, or says what no agent says.
    pub async fn receive(&self) -> Result<Received, Broken> {
        let mut descriptors = Vec::new();
        let mut header = [0; HEADER];
        self.fill(&mut header, &mut descriptors).await?;
        let Header { descriptors: announced, length } = Header::parse(header)?;
        let mut body = Zeroizing::new(vec![0; length]);
        // Never further than to the end of this message: what comes with the next one is not this one's.
        self.fill(&mut body, &mut descriptors).await?;
        let found = descriptors.len();
        if found != announced {
            return Err(Malformed::Descriptors { wanted: announced, found }.into());
        }
        Ok(Received { message: Message::decode(&body, found)?, descriptors })
    }

    /// The same, for so long.
    ///
    /// # Errors
    /// As for [`Self::receive`], and if nothing comes.
    pub async fn receive_within(&self, limit: Duration) -> Result<Received, Broken> {
        timeout(limit, self.receive()).await.map_err(|_| Broken::Silent(limit))?
    }

    async fn fill(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<(), Broken> {
        let mut at = 0;
        while at < buffer.len() {
            let rest = &mut buffer[at..];
            let receive = || receive_some(&self.stream, rest, descriptors);
            match self.stream.async_io(Interest::READABLE, receive).await? {
                0 => return Err(Broken::Ended),
                count => at += count,
            }
            if descriptors.len() > MOST {
                return Err(Malformed::Header.into());
            }
        }
        Ok(())
    }
}

impl Received {
    /// What it is, where something else is awaited.
    pub fn unexpected(&self) -> Broken {
        match &self.message {
            Message::Refused(why) => Broken::Refused(why.clone()),
            other => Broken::Unexpected(format!("{other:?}")),
        }
    }
}

/// Descriptors with one message.
const MOST: usize = 2;

fn send_some(
    stream: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// Bytes, and descriptors, which are added to those that have come before. What is more than may come is closed.
fn receive_some(
    stream: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            descriptors.extend(files);
        }
    }
    Ok(received.bytes)
}
