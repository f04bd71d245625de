//! The gate as a plugin of the runtime's Node Resource Interface: the runtime asks over a connection that the agent holds, after
//! it has made a sandbox's network namespace, and before any container of the pod starts.
//!
//! A runtime that gets no answer within its time limit closes the connection and goes on without asking. So every answer is in
//! time, if need be an error that names the cause, which fails the sandbox; and a connection that has ended is made anew at once.

mod connection;
mod describe;
mod messages;
pub mod mux;
mod patience;
mod service;
pub mod ttrpc;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::SecureRandom;
use tokio::net::UnixStream;
use tokio::sync::watch;

pub use connection::Limits;
use connection::{Observer, serve};
use service::{Runtime, Service};

use super::keeper::Doorkeeper;
use super::status::NriStatus;
use crate::follow::Backoff;
use crate::sys::netns::NetworkNamespace;

/// Pauses between attempts to connect: short, since pods start without being asked about meanwhile.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long connecting may take: a runtime that is stopped takes no connections once its queue is full.
const CONNECT: Duration = Duration::from_secs(2);

/// The plugin.
pub struct Plugin {
    /// Letters, digits and `_.+-`. What pods name that require it (`required-plugins.noderesource.dev`).
    pub name: String,
    /// Where the runtime listens.
    pub socket: PathBuf,
    pub doorkeeper: Arc<dyn Doorkeeper>,
    pub status: watch::Sender<NriStatus>,
    pub random: &'static dyn SecureRandom,
    pub limits: Limits,
}

impl Plugin {
    /// Connects, and again whenever the connection ends.
    pub async fn run(self) {
        let mut backoff = Backoff::between(self.random, FIRST_PAUSE, LONGEST_PAUSE);
        let status = Arc::new(Telling(self.status));
        loop {
            let error = match connect(&self.socket).await {
                Err(error) => not_connected(&self.socket, &error),
                Ok((stream, own)) => {
                    let service = Service::new(self.doorkeeper.clone(), own);
                    serve(stream, &self.name, service, status.clone(), self.limits)
                        .await
                        .to_string()
                }
            };
            if status.ended(&error) {
                tracing::warn!(error, "the runtime's NRI: connection lost; connecting again");
                backoff.reset();
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

async fn connect(socket: &Path) -> io::Result<(UnixStream, NetworkNamespace)> {
    let own = NetworkNamespace::own()?;
    let stream = tokio::time::timeout(CONNECT, UnixStream::connect(socket)).await??;
    Ok((stream, own))
}

fn not_connected(socket: &Path, error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket; containerd from 2.0 on and CRI-O from 1.30 on have one, unless NRI is disabled"
                .to_owned()
        }
        io::ErrorKind::ConnectionRefused => "nobody listens; does the runtime run?".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied; it is for root alone".to_owned(),
        io::ErrorKind::TimedOut => "the runtime takes no connections".to_owned(),
        _ => error.to_string(),
    };
    format!("{}: {cause}", socket.display())
}

/// Keeps the status.
struct Telling(watch::Sender<NriStatus>);

impl Telling {
    /// Says that there is no connection. True if there was one.
    fn ended(&self, error: &str) -> bool {
        let mut was_connected = false;
        self.0.send_if_modified(|status| {
            was_connected = status.connected_since.take().is_some();
            let is_new = status.last_error.as_deref() != Some(error);
            if is_new && !was_connected {
                tracing::info!(error, "the runtime's NRI: not connected");
            }
            status.last_error = Some(error.to_owned());
            is_new || was_connected
        });
        was_connected
    }
}

impl Observer for Telling {
    fn configured(&self, runtime: &Runtime) {
        tracing::info!(runtime = runtime.name, "the runtime's NRI: connected");
        self.0.send_modify(|status| {
            status.connected_since = Some(SystemTime::now());
            status.runtime = Some(runtime.name.clone());
            status.request_timeout = Some(runtime.request_timeout);
            status.connections += 1;
        });
    }

    fn answered(&self, admitted: bool) {
        self.0.send_modify(|status| {
            let count = if admitted { &mut status.admitted } else { &mut status.not_admitted };
            *count += 1;
        });
    }
}

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
