//! Accepts the connections that the kernel turns to the agent: one loop for each listener of a namespace.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sheath_common::flow::{Flow, FlowKey, ListenerKind};
use sheath_common::net::Endpoint;
use sheath_common::workload::{NO_WORKLOAD, WorkloadId};
use socket2::{SockAddr, SockRef, Socket};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use super::spares;
use super::state::Namespace;
use crate::flow::Inherited;
use crate::telemetry::Refusals;

/// Pause after `accept()` fails for want of memory.
const RETRY: Duration = Duration::from_millis(50);

/// A connection that a workload opened, and what the kernel recorded about it.
#[derive(Debug)]
pub struct AcceptedOutbound {
    pub stream: TcpStream,
    /// The application's end; loopback unless the application had bound its socket.
    pub app: SocketAddr,
    pub destination: SocketAddr,
    pub workload: WorkloadId,
    pub inherited: Inherited,
}

/// A connection that the network opened to a workload.
#[derive(Debug)]
pub struct AcceptedInbound {
    pub stream: TcpStream,
    pub client: SocketAddr,
    pub destination: SocketAddr,
    pub workload: WorkloadId,
}

/// What happens to accepted connections: the other stages, as capture sees them. Must return at once.
pub trait FlowStarter: std::fmt::Debug + Send + Sync {
    /// The runtime that the next listener is waited for on.
    fn runtime(&self) -> Handle;
    /// A namespace is served from now on.
    fn serves(&self, namespace: &Arc<Namespace>);
    fn outbound(&self, namespace: Arc<Namespace>, accepted: AcceptedOutbound);
    fn inbound(&self, namespace: Arc<Namespace>, accepted: AcceptedInbound);
    /// A connection that belongs to no workload; it has been reset.
    fn stranger(&self, namespace: &Namespace, kind: ListenerKind, remote: SocketAddr);
    /// A connection for which there was no descriptor; it has been reset.
    fn shed(&self, namespace: &Namespace);
    /// Where it is noted what is refused, by the kernel as well.
    fn refusals(&self) -> Arc<Refusals>;
}

/// One listener.
pub struct Accepting {
    namespace: Arc<Namespace>,
    listener: Arc<TcpListener>,
    starter: Arc<dyn FlowStarter>,
}

impl Accepting {
    pub fn new(
        namespace: Arc<Namespace>,
        listener: Arc<TcpListener>,
        starter: Arc<dyn FlowStarter>,
    ) -> Self {
        spares::fill();
        Self { namespace, listener, starter }
    }

    /// Accepts until the task is aborted.
    pub async fn run(self, kind: ListenerKind) {
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
                // It belongs to no workload: dropping the stream has reset it.
                Ok(None) => starter.stranger(namespace, kind, remote),
                Err(error) => tracing::warn!(%remote, %error, "accepted connection lost"),
            }
        }
    }

    /// The next connection. For want of memory, connections wait in the queue until it has passed. For want of descriptors
    /// they are reset: there may be none for long.
    async fn next(&self, kind: ListenerKind) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, remote)) => return (stream, canonical(remote)),
                Err(error) if spares::is_out_of_descriptors(&error) && self.shed(kind) => {}
                Err(error) => {
                    tracing::warn!(namespace = self.namespace.inode(), %error, "cannot accept connections");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Resets the next connection in the queue. False if there is not even a descriptor for that.
    fn shed(&self, kind: ListenerKind) -> bool {
        let accepted = spares::with_one(|| SockRef::from(&*self.listener).accept());
        let is_reset = matches!(accepted, Some(Ok(_)));
        if let Some(Ok((socket, remote))) = accepted {
            if kind == ListenerKind::Outbound {
                self.forget(&socket, &remote);
            }
            drop(socket);
            self.starter.shed(&self.namespace);
        }
        spares::fill();
        is_reset
    }

    /// Removes the kernel's entry of a connection that nobody serves. If it stayed, it would be taken for that of a
    /// later connection from the same port, and neither would be served.
    fn forget(&self, socket: &Socket, remote: &SockAddr) {
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        if let (Some(local), Some(remote)) = (local, remote.as_socket())
            && let Err(error) = self.namespace.take_flow(local, canonical(remote))
        {
            tracing::warn!(%remote, %error, "entry of a connection stays in the map FLOWS");
        }
    }
}

impl Namespace {
    /// What an accepted connection of an application is, if it is one.
    fn identify_outbound(
        &self,
        stream: TcpStream,
        app: SocketAddr,
    ) -> io::Result<Option<AcceptedOutbound>> {
        let flow = self.take_flow(stream.local_addr()?, app)?;
        Ok(flow.map(|flow| AcceptedOutbound {
            stream,
            app,
            destination: flow.destination.into(),
            workload: flow.workload,
            inherited: Inherited { owner: flow.owner, asked: flow.asked },
        }))
    }

    /// Takes what the kernel recorded about a connection from `app`, accepted at `local`.
    ///
    /// Only a connection to exactly the address that `connect()` is turned to has an entry. One that reaches the listener
    /// in another way may have the same source as somebody else's, and must not be taken for it. Entries are taken in the
    /// order of `accept()`: an entry belongs to the oldest connection of its source that waits.
    fn take_flow(&self, local: SocketAddr, app: SocketAddr) -> io::Result<Option<Flow>> {
        let Some(place) = Endpoint::from(local).agents_place() else {
            return Ok(None);
        };
        let app = Endpoint::from(app);
        let key = FlowKey { netns: self.cookie, address: app.address, port: app.port, place };
        let Some(flow) = self.maps.flows.get(&key)? else {
            return Ok(None);
        };
        self.maps.flows.remove(&key)?;
        Ok(Some(flow).filter(|flow| flow.workload != NO_WORKLOAD))
    }

    /// What an accepted connection of the network is, if it is a workload's. What is steered never goes to a loopback
    /// address: a connection to one was made to the listener itself.
    fn identify_inbound(
        &self,
        stream: TcpStream,
        client: SocketAddr,
    ) -> io::Result<Option<AcceptedInbound>> {
        let local = stream.local_addr()?;
        let destination = SocketAddr::new(local.ip().to_canonical(), local.port());
        if destination.ip().is_loopback() {
            return Ok(None);
        }
        let owner = self.owner(destination);
        Ok(owner.map(|workload| AcceptedInbound { stream, client, destination, workload }))
    }
}

/// An address of IPv4 in the form of IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
