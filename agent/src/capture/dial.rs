//! The agent's own connections out of a workload's namespace: to the wire with the workload's address. Those to local
//! applications are in [`super::local_leg`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sheath_common::flow::LegKey;
use sheath_common::net::Endpoint;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::sources::route_source;
use super::{Namespace, Tables};
use crate::sys::sockopt;

impl Namespace {
    /// Dials the wire leg of a flow from the workload's own address and, where it is free, from the
    /// application's own port. `app` is the application's end of the app leg.
    pub async fn dial_wire(
        &self,
        app: SocketAddr,
        destination: SocketAddr,
        limit: Duration,
    ) -> io::Result<TcpStream> {
        let routed = self.netns.run(|| route_source(destination.ip()))?;
        let source = if app.ip().is_loopback() { routed } else { app.ip() };
        let is_local = routed == destination.ip();
        match self
            .dial_from(SocketAddr::new(source, app.port()), destination, is_local, limit)
            .await
        {
            // The port is taken, by another socket or by the remains of an earlier connection.
            Err(error) if is_address_taken(&error) => {
                self.dial_from(SocketAddr::new(source, 0), destination, is_local, limit).await
            }
            result => result,
        }
    }

    async fn dial_from(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        is_local: bool,
        limit: Duration,
    ) -> io::Result<TcpStream> {
        let socket = self.socket(destination)?;
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
        // A workload of this very namespace: loopback traffic that the agent wants steered, for once.
        let _steered = if is_local { Some(self.steer_wire(&socket)?) } else { None };
        connect(socket, destination, limit).await
    }

    /// A socket in this namespace, ready to connect.
    pub(super) fn socket(&self, destination: SocketAddr) -> io::Result<Socket> {
        let domain = Domain::for_address(destination);
        let socket = self.netns.run(|| Socket::new(domain, Type::STREAM, Some(Protocol::TCP)))?;
        socket.set_nonblocking(true)?;
        sockopt::prepare_leg(&socket)?;
        Ok(socket)
    }

    fn steer_wire(&self, socket: &Socket) -> io::Result<SteeredWire> {
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        let key = self.leg_key(local);
        self.tables.wires.insert(&key, &0)?;
        Ok(SteeredWire { tables: self.tables.clone(), key })
    }

    pub(super) fn leg_key(&self, local: SocketAddr) -> LegKey {
        let endpoint = Endpoint::from(local);
        LegKey { netns: self.cookie, address: endpoint.address, port: endpoint.port, _reserved: 0 }
    }
}

/// An entry of the `WIRES` map: needed only until the SYN has been looked up.
struct SteeredWire {
    tables: Arc<Tables>,
    key: LegKey,
}

impl Drop for SteeredWire {
    fn drop(&mut self) {
        if let Err(error) = self.tables.wires.remove(&self.key) {
            tracing::warn!(%error, "entry of a dialled wire leg stays in the map WIRES");
        }
    }
}

pub(super) async fn connect(
    socket: Socket,
    destination: SocketAddr,
    limit: Duration,
) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(socket.into());
    match tokio::time::timeout(limit, socket.connect(destination)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {}", humantime::format_duration(limit)),
        )),
    }
}

pub(super) fn is_address_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable | io::ErrorKind::AlreadyExists
    )
}
