//! Accepting what the kernel turns to the agent: one loop for each listener of a namespace.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sheath_common::flow::ListenerKind;
use socket2::{SockAddr, SockRef, Socket};
use tokio::net::{TcpListener, TcpStream};

use super::{FlowStarter, Namespace};

/// Pause after `accept()` fails for want of memory.
const RETRY: Duration = Duration::from_millis(50);
/// What a descriptor that is only kept stands for.
const NOTHING: &str = "/dev/null";

/// One listener.
pub struct Accepting {
    namespace: Arc<Namespace>,
    listener: TcpListener,
    starter: Arc<dyn FlowStarter>,
    /// A descriptor to give up when there is no other: with it a connection can be accepted, to be reset.
    spare: Option<File>,
}

impl Accepting {
    pub fn new(
        namespace: Arc<Namespace>,
        listener: TcpListener,
        starter: Arc<dyn FlowStarter>,
    ) -> Self {
        Self { namespace, listener, starter, spare: File::open(NOTHING).ok() }
    }

    /// Accepts for as long as it is let.
    pub async fn run(mut self, kind: ListenerKind) {
        if kind == ListenerKind::Inbound {
            self.namespace.ports_known().await;
        }
        loop {
            let (stream, remote) = self.next(kind).await;
            let (namespace, starter) = (&self.namespace, &self.starter);
            let found = match kind {
                ListenerKind::Outbound => {
                    namespace.identify_outbound(stream, remote).map(|found| {
                        found.map(|accepted| starter.outbound(namespace.clone(), accepted))
                    })
                }
                ListenerKind::Inbound => namespace.identify_inbound(stream, remote).map(|found| {
                    found.map(|accepted| starter.inbound(namespace.clone(), accepted))
                }),
            };
            match found {
                Ok(Some(())) => {}
                // No workload's: dropping the stream has reset it.
                Ok(None) => starter.stranger(namespace, kind, remote),
                Err(error) => tracing::warn!(%remote, %error, "accepted connection lost"),
            }
        }
    }

    /// The next connection. Want of memory passes, and until then connections wait in the queue. Without descriptors
    /// they are reset, so that nobody waits for what may never come.
    async fn next(&mut self, kind: ListenerKind) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, remote)) => return (stream, canonical(remote)),
                Err(error) if is_out_of_descriptors(&error) && self.shed(kind) => {}
                Err(error) => {
                    tracing::warn!(namespace = self.namespace.inode(), %error, "accept");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Resets the next connection in the queue. False if there is not even a descriptor for that.
    fn shed(&mut self, kind: ListenerKind) -> bool {
        if self.spare.take().is_none() {
            self.spare = File::open(NOTHING).ok();
            return false;
        }
        let accepted = SockRef::from(&self.listener).accept();
        let is_reset = accepted.is_ok();
        if let Ok((socket, remote)) = accepted {
            if kind == ListenerKind::Outbound {
                self.forget(&socket, &remote);
            }
            drop(socket);
            self.starter.shed(&self.namespace);
        }
        self.spare = File::open(NOTHING).ok();
        is_reset
    }

    /// Takes what the kernel recorded about a connection that nobody serves: left there, it would pass for that of a
    /// later one from the same port, and neither would be believed.
    fn forget(&self, socket: &Socket, remote: &SockAddr) {
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        if let (Some(local), Some(remote)) = (local, remote.as_socket())
            && let Err(error) = self.namespace.take_flow(local, canonical(remote))
        {
            tracing::warn!(%remote, %error, "trace of a connection stays in the map FLOWS");
        }
    }
}

/// As IPv4 where it is that.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
