//! The agent's side of the admin socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use serde::Serialize;

use super::{AgentInfo, Question};
use crate::capture::SupervisorRequest;
use crate::control::ControlRequest;

/// Nobody has more to say than this.
const LONGEST_QUESTION: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// Those that know the answers.
#[derive(Debug)]
pub struct Planes {
    pub supervisor: mpsc::Sender<SupervisorRequest>,
    pub control: mpsc::Sender<ControlRequest>,
}

/// The same, without keeping them from ending.
#[derive(Clone, Debug)]
struct WeakPlanes {
    supervisor: mpsc::WeakSender<SupervisorRequest>,
    control: mpsc::WeakSender<ControlRequest>,
}

/// Something did not work.
#[derive(Serialize)]
struct Problem {
    error: String,
}

/// It worked, and there is nothing to tell.
#[derive(Serialize)]
struct Done {
    ok: bool,
}

/// The admin socket, open. Its file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    _file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl SocketFile {
    fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "admin socket not removed");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Server {
    /// Opens the socket for root alone. The instance's lock is held, so a socket that is there already is
    /// nobody's.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let file = SocketFile(path.to_owned());
        file.remove();
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, _file: file })
    }

    /// Answers until it is aborted. Then, with `planes`, those end too.
    pub async fn serve(self, info: AgentInfo, planes: Planes) {
        let info = Arc::new(info);
        let weak = WeakPlanes {
            supervisor: planes.supervisor.downgrade(),
            control: planes.control.downgrade(),
        };
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answering = answer(stream, info.clone(), weak.clone());
                    tokio::spawn(async move {
                        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, answering).await {
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
    // The file's mode says the same; this holds also where somebody has changed it.
    if stream.peer_cred()?.uid() != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reading, mut writing) = stream.split();
    let mut question = String::new();
    BufReader::new(reading.take(LONGEST_QUESTION)).read_line(&mut question).await?;
    let mut text = match Question::parse(question.trim_end()) {
        None => serde_json::to_vec(&Problem { error: "unknown question".to_owned() })?,
        Some(Question::Status) => {
            let view = request(&planes.supervisor, SupervisorRequest::Status).await?;
            serde_json::to_vec(&info.status(view))?
        }
        Some(Question::Certificates) => {
            let view = request(&planes.control, ControlRequest::Certificates).await?;
            serde_json::to_vec(&view)?
        }
        Some(Question::Reload) => match request(&planes.control, ControlRequest::Reload).await? {
            Ok(()) => serde_json::to_vec(&Done { ok: true })?,
            Err(error) => serde_json::to_vec(&Problem { error: error.to_string() })?,
        },
    };
    text.push(b'\n');
    writing.write_all(&text).await?;
    writing.shutdown().await
}

async fn request<R, A>(
    plane: &mpsc::WeakSender<R>,
    ask: impl FnOnce(oneshot::Sender<A>) -> R,
) -> io::Result<A> {
    let (sender, answer) = oneshot::channel();
    let plane = plane.upgrade().ok_or(io::ErrorKind::ConnectionAborted)?;
    plane.send(ask(sender)).await.map_err(|_| io::ErrorKind::ConnectionAborted)?;
    drop(plane);
    answer.await.map_err(io::Error::other)
}
