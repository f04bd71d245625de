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

use super::AgentInfo;
use crate::capture::StatusView;

/// Nobody has more to say than this.
const LONGEST_QUESTION: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(10);

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

    /// Answers until it is aborted.
    pub async fn serve(
        self,
        info: AgentInfo,
        supervisor: mpsc::Sender<oneshot::Sender<StatusView>>,
    ) {
        let info = Arc::new(info);
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answering = answer(stream, info.clone(), supervisor.downgrade());
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
    supervisor: mpsc::WeakSender<oneshot::Sender<StatusView>>,
) -> io::Result<()> {
    // The file's mode says the same; this holds also where somebody has changed it.
    if stream.peer_cred()?.uid() != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reading, mut writing) = stream.split();
    let mut question = String::new();
    BufReader::new(reading.take(LONGEST_QUESTION)).read_line(&mut question).await?;
    if question.trim_end() != "status" {
        return writing.write_all(b"{\"error\":\"unknown question\"}\n").await;
    }
    let (ask, view) = oneshot::channel();
    let supervisor = supervisor.upgrade().ok_or(io::ErrorKind::ConnectionAborted)?;
    supervisor.send(ask).await.map_err(io::Error::other)?;
    drop(supervisor);
    let view = view.await.map_err(io::Error::other)?;
    let mut text = serde_json::to_vec(&info.status(view))?;
    text.push(b'\n');
    writing.write_all(&text).await?;
    writing.shutdown().await
}
