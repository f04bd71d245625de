//! The agent's connections to local applications, on behalf of a client.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sheath_common::flow::{LegKey, LocalLeg as Addressee, Owner, Reached};
use sheath_common::net::Endpoint;
use sheath_common::workload::WorkloadId;
use tokio::net::TcpStream;

use super::dial::{answered, begin, is_address_taken};
use super::state::Namespace;
use super::unreachable::errno_of;
use crate::capture::kernel::maps::Maps;
use crate::sys::bpf::SocketFd;

/// Ports for local legs: the kernel's default ephemeral range, where no service is expected.
pub const FIRST_PORT: u32 = 32_768;
pub const PORTS: u32 = 60_999 - FIRST_PORT + 1;
/// Ports tried for one local leg before giving up.
const PORT_ATTEMPTS: u32 = 512;
/// Pauses between looks at whether the kernel has dropped the SYN of a connection that nothing answers.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// Why there is no connection to the local application.
#[derive(Debug, thiserror::Error)]
pub enum LocalLegError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(
        "the socket that listens on {0} was not made in the workload's cgroup, so it gets nothing of the workload's; \
         if a service manager made it for the workload, inbound.activator must say so"
    )]
    SomebodyElse(SocketAddr),
    #[error(
        "no BPF program runs for the socket that listens on {0}, so it cannot be told whose it is; \
         was it made in a cgroup outside capture.cgroup?"
    )]
    Unseen(SocketAddr),
}

impl LocalLegError {
    /// True if nothing listens.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// True if the application is the cause, and not the agent.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Io(error) => errno_of(error).is_some(),
            Self::SomebodyElse(_) | Self::Unseen(_) => true,
        }
    }
}

/// A connection to a local application. While it lives, the application sees the client as its peer.
#[derive(Debug)]
pub struct LocalLeg {
    pub stream: TcpStream,
    pub name: ClientName,
}

/// An entry of the `CLIENTS` map, removed with this value.
#[derive(Debug, Default)]
pub struct ClientName {
    /// `None` if it is not this process's to remove.
    maps: Option<Arc<Maps>>,
    key: LegKey,
}

impl ClientName {
    pub(super) fn new(maps: Arc<Maps>, key: LegKey) -> Self {
        Self { maps: Some(maps), key }
    }

    /// The entry stays: another process has the connection now.
    pub fn leave(&mut self) {
        self.maps = None;
    }
}

impl Drop for ClientName {
    fn drop(&mut self) {
        if let Some(maps) = &self.maps
            && let Err(error) = maps.clients.remove(&self.key)
        {
            tracing::warn!(%error, "entry of a finished flow stays in the map CLIENTS");
        }
    }
}

impl Namespace {
    /// Dials a workload's application at the address the client dialled. `client` is the peer that the application will
    /// see. Only a socket of the workload is reached: the kernel says whose the listening socket is.
    ///
    /// # Errors
    /// Those of connect(2); that the socket is not the workload's; or that the kernel does not see whose it is.
    pub async fn dial_app(
        &self,
        workload: WorkloadId,
        client: SocketAddr,
        destination: SocketAddr,
        limit: Duration,
    ) -> Result<LocalLeg, LocalLegError> {
        for _ in 0..PORT_ATTEMPTS {
            match self.dial_app_once(workload, client, destination, limit).await {
                Err(LocalLegError::Io(error)) if is_address_taken(&error) => {}
                result => return result,
            }
        }
        let reason = "no free port for a connection to the local application";
        Err(io::Error::new(io::ErrorKind::AddrInUse, reason).into())
    }

    /// The port is chosen here and not by the kernel: the entry that tells the application who its client is must be there
    /// before the application can see the connection.
    async fn dial_app_once(
        &self,
        workload: WorkloadId,
        client: SocketAddr,
        destination: SocketAddr,
        limit: Duration,
    ) -> Result<LocalLeg, LocalLegError> {
        let offset = self.next_port.fetch_add(1, Ordering::Relaxed) % PORTS;
        let source = SocketAddr::new(destination.ip(), (FIRST_PORT + offset) as u16);
        if source == destination {
            // TCP would connect the socket to itself.
            return Err(io::Error::from(io::ErrorKind::AddrInUse).into());
        }
        let socket = self.socket(destination, Owner::default())?;
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
        let fd = SocketFd(socket.as_raw_fd() as u32);
        let addressee = Addressee { workload, activator: self.activator(workload), reached: 0 };
        self.maps.local_legs.insert(&fd, &addressee)?;
        let key = self.leg_key(source);
        self.maps.clients.insert_new(&key, &Endpoint::from(client))?;
        let name = ClientName::new(self.maps.clone(), key);
        begin(&socket, destination)?;
        // Loopback answers within the call, unless the application has no room for another connection.
        let has_answered = socket.peer_addr().is_ok();
        let stream = TcpStream::from_std(socket.into())?;
        if !has_answered {
            tokio::select! {
                biased;
                connected = answered(&stream, limit) => connected?,
                () = refused(&self.maps, fd) => {}
            }
        }
        match reached(&self.maps, fd)? {
            Reached::TheWorkload => Ok(LocalLeg { stream, name }),
            Reached::SomebodyElse => Err(LocalLegError::SomebodyElse(destination)),
            Reached::Nobody => Err(LocalLegError::Unseen(destination)),
        }
    }
}

/// Waits until the kernel has seen the connection come to a socket that is not the workload's. It drops the SYN then, and
/// nothing answers.
async fn refused(maps: &Maps, fd: SocketFd) {
    let mut pause = FIRST_PAUSE;
    while !matches!(reached(maps, fd), Ok(Reached::SomebodyElse)) {
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

fn reached(maps: &Maps, fd: SocketFd) -> io::Result<Reached> {
    let leg = maps.local_legs.get(&fd)?;
    Ok(leg.map_or(Reached::Nobody, |leg| leg.reached()))
}
