//! The agent's side of the gate socket.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::LONGEST;
use super::messages::{Answer, AskedSandbox, Operation, Request};
use crate::gate::keeper::Doorkeeper;
use crate::gate::reason::{NotAdmitted, Reason};
use crate::gate::sandbox::{Sandbox, SandboxId};
use crate::sys::netns::NetworkNamespace;
use crate::sys::unix_socket::{self, SocketFile};

/// How long the agent waits for a pod to be decided: less than who asks waits for the agent.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long a request or an answer may be under way.
const ON_THE_WAY: Duration = Duration::from_secs(2);

/// Connections at a time.
const MAX_CONNECTIONS: usize = 512;

/// The gate socket, open. Its file is removed with it.
pub struct Server {
    listener: UnixListener,
    _file: SocketFile,
}

/// What is told about requests, for status.
pub trait Asked: Send + Sync {
    fn answered(&self, admitted: bool);
}

impl Server {
    /// Opens the socket, for root alone. The instance's lock is held, so a socket that is there already is one that an
    /// earlier agent left.
    ///
    /// # Errors
    /// If the socket cannot be made at `path`.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let (listener, file) = unix_socket::bind(path)?;
        Ok(Self { listener, _file: file })
    }

    /// Answers requests until it is aborted.
    pub async fn serve(self, doorkeeper: Arc<dyn Doorkeeper>, asked: Arc<dyn Asked>) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // Others wait in the listener's queue.
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (doorkeeper, asked) = (doorkeeper.clone(), asked.clone());
                    tokio::spawn(async move {
                        if let Err(error) = answer(stream, &*doorkeeper, &*asked).await {
                            tracing::debug!(%error, "gate socket");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "gate socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn answer(
    mut stream: UnixStream,
    doorkeeper: &dyn Doorkeeper,
    asked: &dyn Asked,
) -> io::Result<()> {
    // The file's mode says the same; this holds even if the mode was changed.
    if stream.peer_cred()?.uid() != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (line, file) = tokio::time::timeout(ON_THE_WAY, receive(&stream)).await??;
    let answer = tokio::select! {
        answer = decide(&line, file, doorkeeper, asked) => answer,
        // Whoever asked has gone: nobody starts anything.
        () = hung_up(&stream) => return Ok(()),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    tokio::time::timeout(ON_THE_WAY, stream.write_all(&text)).await?
}

async fn decide(
    line: &[u8],
    file: Option<OwnedFd>,
    doorkeeper: &dyn Doorkeeper,
    asked: &dyn Asked,
) -> Answer {
    let malformed = |text: String| Answer::no(Reason::Malformed, text);
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => {
            return malformed(format!("sheath: the gate cannot read the request: {error}"));
        }
    };
    if !request.is_understood() {
        return malformed(
            "sheath: the plugin speaks another version of the gate's protocol than the agent; `sheath cni install` of the \
             agent's version replaces it"
                .to_owned(),
        );
    }
    let patience = match request.op {
        Operation::Status => return Answer::yes(),
        Operation::Gone => {
            if let Some(id) = request.sandbox.and_then(|gone| SandboxId::new(&gone.id).ok()) {
                doorkeeper.gone(&id);
            }
            return Answer::yes();
        }
        Operation::Admit => PATIENCE,
        Operation::Check => Duration::ZERO,
    };
    let Some(sandbox) = request.sandbox else {
        return malformed("sheath: the request does not say which sandbox".to_owned());
    };
    if Sandbox::is_static(&sandbox.uid) {
        return Answer::yes();
    }
    let answer = admit(sandbox, file, doorkeeper, patience).await;
    asked.answered(answer.ok);
    answer
}

async fn admit(
    asked: AskedSandbox,
    file: Option<OwnedFd>,
    doorkeeper: &dyn Doorkeeper,
    patience: Duration,
) -> Answer {
    let whose = format!("pod {}/{}", asked.namespace, asked.name);
    let sandbox = match namespace(file)
        .and_then(|namespace| asked.with(namespace).map_err(|error| error.to_string()))
    {
        Ok(sandbox) => sandbox,
        Err(error) => {
            let why = NotAdmitted::Malformed(error);
            return Answer::no(why.reason(), format!("sheath: {whose}: {why}"));
        }
    };
    let (pod, uid) = (sandbox.pod.clone(), sandbox.uid);
    match doorkeeper.admit(sandbox, Instant::now() + patience).await {
        Ok(()) => Answer::yes(),
        Err(why) => {
            tracing::info!(%pod, %uid, reason = ?why.reason(), "sandbox not started: {why}");
            Answer::no(why.reason(), why.about(&pod, &uid))
        }
    }
}

fn namespace(file: Option<OwnedFd>) -> Result<Option<NetworkNamespace>, String> {
    let Some(file) = file else {
        return Ok(None);
    };
    let own = NetworkNamespace::own().map_err(|error| error.to_string())?;
    let namespace = NetworkNamespace::received(file, &own).map_err(|error| error.to_string())?;
    if namespace.is_own() {
        // Pods in the host's network get none by CNI; what is let through for them is not for others.
        return Err("its network namespace is the host's network".to_owned());
    }
    Ok(Some(namespace))
}

/// A line, and the file that came with it.
async fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let (mut line, mut file) = (Vec::new(), None);
    loop {
        let mut buffer = [0; 4096];
        let count = stream
            .async_io(Interest::READABLE, || {
                let (count, received) = receive_some(stream, &mut buffer)?;
                file = file.take().or(received);
                Ok(count)
            })
            .await?;
        line.extend_from_slice(&buffer[..count]);
        if line.last() == Some(&b'\n') {
            return Ok((line, file));
        }
        if count == 0 || line.len() > LONGEST {
            return Err(io::Error::other("a request that is not one short line"));
        }
    }
}

/// Bytes and a file. Of several files all but one are closed.
fn receive_some(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let mut files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    Ok((received.bytes, files.next()))
}

/// Ends when the other side has closed its end, or says more than it should.
async fn hung_up(stream: &UnixStream) {
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut [0; 1]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
