//! The agent's own connections out of a workload's namespace: to the wire with the workload's address. Those to local
//! applications are in [`super::local_leg`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sheath_common::flow::{LegKey, Owner};
use sheath_common::net::Endpoint;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

use super::route::route_source;
use super::state::Namespace;
use crate::capture::kernel::maps::Maps;
use crate::flow::Inherited;
use crate::sys::{owner, sockopt};

impl Namespace {
    /// Dials the wire leg of a flow from the workload's own address and, where it is free, from the
    /// application's own port. `app` is the application's end of the app leg.
    ///
    /// # Errors
    /// Those of connect(2); `TimedOut` if nothing answers within `limit`; `AddrNotAvailable` if no local port is free.
    pub async fn dial_wire(
        &self,
        app: SocketAddr,
        destination: SocketAddr,
        inherited: &Inherited,
        limit: Duration,
    ) -> io::Result<TcpStream> {
        let routed = self.netns.run(|| route_source(destination.ip(), inherited))?;
        let source = if app.ip().is_loopback() { routed } else { app.ip() };
        let is_local = routed == destination.ip();
        let dial = async |port| {
            let source = SocketAddr::new(source, port);
            self.dial_from(source, destination, inherited, is_local, limit).await
        };
        match dial(app.port()).await {
            // The port is taken, by another socket or by the remains of an earlier connection.
            Err(error) if is_address_taken(&error) => dial(0).await.map_err(|error| {
                if !is_address_taken(&error) {
                    return error;
                }
                let none = format!("no local port of {source} is free for a connection to it");
                io::Error::new(io::ErrorKind::AddrNotAvailable, none)
            }),
            result => result,
        }
    }

    /// The address that a flow's wire leg to `destination` would have. `app` is the application's end of the app leg.
    ///
    /// # Errors
    /// That there is no route, for instance.
    pub fn source_towards(
        &self,
        app: SocketAddr,
        destination: IpAddr,
        inherited: &Inherited,
    ) -> io::Result<IpAddr> {
        match app.ip() {
            bound if !bound.is_loopback() => Ok(bound),
            _ => self.netns.run(|| route_source(destination, inherited)),
        }
    }

    async fn dial_from(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        inherited: &Inherited,
        is_local: bool,
        limit: Duration,
    ) -> io::Result<TcpStream> {
        let socket = self.socket(destination, inherited.owner)?;
        sockopt::take_over(&socket, &inherited.asked, destination)?;
        socket.set_reuse_address(true)?;
        // The kernel may choose a port that is in use towards another destination, unless it must be known before the SYN.
        if source.port() == 0 && !is_local {
            sockopt::choose_port_late(&socket)?;
        }
        socket.bind(&source.into())?;
        // To a workload of this namespace, over loopback: not steered unless the agent asks for it.
        let _steered = if is_local { Some(self.steer_wire(&socket)?) } else { None };
        connect(socket, destination, limit).await
    }

    /// A socket in this namespace, ready to connect.
    ///
    /// # Errors
    /// Those of socket(2) and setsockopt(2).
    pub(super) fn socket(&self, destination: SocketAddr, owner: Owner) -> io::Result<Socket> {
        let domain = Domain::for_address(destination);
        let kind = Type::STREAM.nonblocking();
        let make = || Socket::new(domain, kind, Some(Protocol::TCP));
        let socket = self.netns.run(|| owner::run_as(owner, make))?;
        sockopt::prepare_leg(&socket)?;
        Ok(socket)
    }

    fn steer_wire(&self, socket: &Socket) -> io::Result<SteeredWire> {
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        let key = self.leg_key(local);
        self.maps.wires.insert(&key, &0)?;
        Ok(SteeredWire { maps: self.maps.clone(), key })
    }

    /// Key of a leg in the maps, by its local address.
    pub(super) fn leg_key(&self, local: SocketAddr) -> LegKey {
        let endpoint = Endpoint::from(local);
        LegKey { netns: self.cookie, address: endpoint.address, port: endpoint.port, _reserved: 0 }
    }
}

/// An entry of the `WIRES` map: needed only until the SYN has been looked up.
struct SteeredWire {
    maps: Arc<Maps>,
    key: LegKey,
}

impl Drop for SteeredWire {
    fn drop(&mut self) {
        if let Err(error) = self.maps.wires.remove(&self.key) {
            tracing::warn!(%error, "entry of a dialled wire leg stays in the map WIRES");
        }
    }
}

/// Connects a socket that [`Namespace::socket`] has made.
async fn connect(
    socket: Socket,
    destination: SocketAddr,
    limit: Duration,
) -> io::Result<TcpStream> {
    begin(&socket, destination)?;
    let stream = TcpStream::from_std(socket.into())?;
    answered(&stream, limit).await?;
    Ok(stream)
}

/// Sends the SYN. The answer may be there already.
///
/// # Errors
/// Those of connect(2), as far as they come at once.
pub(super) fn begin(socket: &Socket, destination: SocketAddr) -> io::Result<()> {
    match socket.connect(&destination.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        result => result,
    }
}

/// Waits for the answer to the SYN.
///
/// # Errors
/// Those of connect(2); `TimedOut` if there is none within `limit`.
pub(super) async fn answered(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    match tokio::time::timeout(limit, stream.writable()).await {
        Ok(answered) => answered?,
        Err(_) => {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {}", humantime::format_duration(limit)),
            ));
        }
    }
    stream.take_error()?.map_or(Ok(()), Err)
}

pub(super) fn is_address_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable | io::ErrorKind::AlreadyExists
    )
}
