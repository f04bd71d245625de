//! The agent's side of the admin socket.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use serde::Serialize;

use super::{AgentInfo, Health, Request, TIME_LIMIT};
use crate::capture::SupervisorRequest;
use crate::control::ControlRequest;
use crate::sys::unix_socket::{self, SocketFile};

/// Bytes; every request is shorter.
const MAX_REQUEST: u64 = 64;

/// Where requests are answered.
#[derive(Debug)]
pub struct Planes {
    pub supervisor: mpsc::Sender<SupervisorRequest>,
    pub control: mpsc::Sender<ControlRequest>,
}

/// The same, without keeping them running.
#[derive(Clone, Debug)]
struct WeakPlanes {
    supervisor: mpsc::WeakSender<SupervisorRequest>,
    control: mpsc::WeakSender<ControlRequest>,
}

/// The answer to a request that failed.
#[derive(Serialize)]
struct Problem {
    error: String,
}

/// The answer to a request that succeeded, and has no result.
#[derive(Serialize)]
struct Done {
    ok: bool,
}

/// The admin socket, open. Its file is removed with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    _file: SocketFile,
}

/// The admin socket, which is not in its place yet.
#[derive(Debug)]
pub struct PreparedServer(unix_socket::Prepared);

impl PreparedServer {
    /// Opens the socket, for root alone. The instance's lock is held, so a socket that is in its place already is one that an
    /// earlier agent has left, or an agent that this one takes over from.
    ///
    /// # Errors
    /// If the socket cannot be made for `path`.
    pub fn new(path: &Path) -> io::Result<Self> {
        unix_socket::prepare(path).map(Self)
    }

    /// From now on, this agent is the one that is asked.
    ///
    /// # Errors
    /// If the socket cannot be moved to its place.
    pub fn publish(self) -> io::Result<Server> {
        let (listener, file) = self.0.publish()?;
        Ok(Server { listener, _file: file })
    }
}

impl Server {
    /// Answers requests until it is aborted. Then `planes` are dropped, which ends the tasks behind them.
    pub async fn serve(self, info: Arc<AgentInfo>, planes: Planes) {
        let weak = WeakPlanes {
            supervisor: planes.supervisor.downgrade(),
            control: planes.control.downgrade(),
        };
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answering = answer(stream, info.clone(), weak.clone());
                    tokio::spawn(async move {
                        if let Ok(Err(error)) = tokio::time::timeout(TIME_LIMIT, answering).await {
                            tracing::debug!(%error, "admin socket");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn answer(
    mut stream: UnixStream,
    info: Arc<AgentInfo>,
    planes: WeakPlanes,
) -> io::Result<()> {
    // The file's mode says the same; this holds even if the mode was changed.
    if stream.peer_cred()?.uid() != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reading, mut writing) = stream.split();
    let mut line = String::new();
    BufReader::new(reading.take(MAX_REQUEST)).read_line(&mut line).await?;
    let mut text = match Request::parse(line.trim_end()) {
        Some(request) if info.has_handed_over() => match request {
            // The successor answers to the next one.
            Request::Alive | Request::Ready => {
                info.threads.all_answer().await;
                serde_json::to_vec(&Health::alive(&info))?
            }
            _ => {
                let error = "this agent hands over to its successor; ask again in a moment";
                serde_json::to_vec(&Problem { error: error.to_owned() })?
            }
        },
        None => {
            let error = "this agent does not know the request; is it of another version?";
            serde_json::to_vec(&Problem { error: error.to_owned() })?
        }
        Some(Request::Status) => {
            let view = ask(&planes.supervisor, SupervisorRequest::Status).await?;
            serde_json::to_vec(&info.status(view))?
        }
        Some(Request::Ready) => {
            let view = ask(&planes.supervisor, SupervisorRequest::InForce).await?;
            serde_json::to_vec(&Health::ready(&view, &info))?
        }
        Some(Request::Alive) => {
            info.threads.all_answer().await;
            serde_json::to_vec(&Health::alive(&info))?
        }
        Some(Request::Certificates) => {
            let view = ask(&planes.control, ControlRequest::Certificates).await?;
            serde_json::to_vec(&view)?
        }
        Some(Request::Reload) => match ask(&planes.control, ControlRequest::Reload).await? {
            Ok(()) => serde_json::to_vec(&Done { ok: true })?,
            Err(error) => serde_json::to_vec(&Problem { error: error.to_string() })?,
        },
    };
    text.push(b'\n');
    writing.write_all(&text).await?;
    writing.shutdown().await
}

/// Sends a request to a task, and waits for its answer.
async fn ask<R, A>(
    plane: &mpsc::WeakSender<R>,
    request: impl FnOnce(oneshot::Sender<A>) -> R,
) -> io::Result<A> {
    let (sender, answer) = oneshot::channel();
    let plane = plane.upgrade().ok_or(io::ErrorKind::ConnectionAborted)?;
    plane.send(request(sender)).await.map_err(|_| io::ErrorKind::ConnectionAborted)?;
    drop(plane);
    answer.await.map_err(io::Error::other)
}
