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
use crate::handover::TAKE_OVER;
use crate::sys::unix_socket::{self, SocketFile};

/// Bytes; every request is shorter.
const MAX_REQUEST: u64 = 64;

/// How long an agent that is to be replaced waits for the end of the one that it has taken over from: longer than that lets
/// connections end, by default.
const BEFORE: Duration = Duration::from_secs(45);

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

/// The answer to a request to be replaced: the successor has been started, and goes on by itself.
#[derive(Serialize)]
struct Started {
    pid: u32,
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
        Some(Request::Replace) => match replace(info).await {
            Ok(pid) => serde_json::to_vec(&Started { pid })?,
            Err(error) => serde_json::to_vec(&Problem { error })?,
        },
    };
    text.push(b'\n');
    writing.write_all(&text).await?;
    writing.shutdown().await
}

/// Starts the program that is installed now, to take over from this agent. Returns its process id.
///
/// # Errors
/// Why it is not started, for people.
async fn replace(info: Arc<AgentInfo>) -> Result<u32, String> {
    if !info.has_service_manager {
        return Err(format!(
            "no service manager has started this agent (NOTIFY_SOCKET), and whoever else has would take its end for a failure; \
             run `{} run {TAKE_OVER}` beside it instead",
            info.program.path().display()
        ));
    }
    // What is in the kernel of connections belongs to two agents at most: a third one's would be taken for leftovers of the first.
    if let Some(before) = &info.taken_over {
        tokio::time::timeout(BEFORE, before.ended()).await.map_err(|_| {
            format!(
                "process {}, which this agent has taken over from, still carries connections; ask again when it has ended",
                before.pid
            )
        })?;
    }
    let starter = info.clone();
    let starting = tokio::task::spawn_blocking(move || {
        let path = starter.program.path().display().to_string();
        starter.program.start(TAKE_OVER).map_err(|error| format!("cannot start {path}: {error}"))
    });
    let pid = starting.await.map_err(|error| error.to_string())??;
    tracing::info!(pid, "told to be replaced; the program that is installed now has been started");
    tokio::spawn(async move {
        info.program.ended().await;
        tracing::warn!(pid, "the program that was started has ended");
    });
    Ok(pid)
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
