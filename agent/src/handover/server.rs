//! The predecessor's side of the beginning: the hand-over socket, where a successor introduces itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::connection::{Broken, Connection};
use super::message::{Introduction, Message};
use super::successor::Successor;
use crate::sys::unix_socket::{self, SocketFile};

/// How long whoever has connected may take to say who it is, and a few bytes to get there.
const GREETING: Duration = Duration::from_secs(2);
/// How long a successor may prepare: nobody else is served meanwhile, and nothing waits.
const PREPARING: Duration = Duration::from_secs(120);
/// Connections at a time. All are root's; more than two at once are a mistake.
const MAX_CONNECTIONS: usize = 8;

/// The hand-over socket, which is not in its place yet.
#[derive(Debug)]
pub struct PreparedServer(unix_socket::Prepared);

/// The hand-over socket, open. Its file is removed with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    _file: SocketFile,
}

impl PreparedServer {
    /// # Errors
    /// If the socket cannot be made.
    pub fn new(path: &Path) -> std::io::Result<Self> {
        unix_socket::prepare(path).map(Self)
    }

    /// From now on, a successor finds this agent.
    ///
    /// # Errors
    /// If the socket cannot be moved to its place.
    pub fn publish(self) -> std::io::Result<Server> {
        let (listener, file) = self.0.publish()?;
        Ok(Server { listener, _file: file })
    }
}

impl Server {
    /// Tells `calls` of successors that are prepared, one at a time, until it is aborted. `welcome` is what they are told.
    pub async fn serve(
        self,
        welcome: impl Fn() -> Message + Clone + Send + 'static,
        calls: mpsc::Sender<Successor>,
    ) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let turn = Arc::new(Semaphore::new(1));
        loop {
            // Others wait in the listener's queue.
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (welcome, turn, calls) = (welcome.clone(), turn.clone(), calls.clone());
                    tokio::spawn(async move {
                        if let Err(error) = answer(stream, welcome, turn, calls).await {
                            tracing::warn!(%error, "a successor that has called does not take over");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "hand-over socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn answer(
    stream: UnixStream,
    welcome: impl Fn() -> Message,
    turn: Arc<Semaphore>,
    calls: mpsc::Sender<Successor>,
) -> Result<(), Broken> {
    let connection = Connection::new(stream)?;
    let (introduction, turn) = match greet(&connection, turn).await {
        Ok(greeted) => greeted,
        Err(broken) => {
            // Perhaps it can read this.
            let why = Message::refused(&broken.to_string());
            let _ = connection.send(&why, &[], GREETING).await;
            return Err(broken);
        }
    };
    tracing::info!(
        pid = connection.peer(),
        version = introduction.agent,
        "an agent prepares to take over from this one"
    );
    connection.send(&welcome(), &[], GREETING).await?;
    let received = connection.receive_within(PREPARING).await?;
    match received.message {
        // If nobody listens any more, this agent is ending.
        Message::Yield => {
            let _ = calls.send(Successor::new(connection, introduction, turn)).await;
            Ok(())
        }
        _ => Err(received.unexpected()),
    }
}

async fn greet(
    connection: &Connection,
    turn: Arc<Semaphore>,
) -> Result<(Introduction, OwnedSemaphorePermit), Broken> {
    let received = connection.receive_within(GREETING).await?;
    let Message::Hello(introduction) = received.message else {
        return Err(received.unexpected());
    };
    let turn = turn.try_acquire_owned().map_err(|_| Broken::Busy)?;
    Ok((introduction, turn))
}
