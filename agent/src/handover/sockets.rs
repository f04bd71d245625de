//! What is checked of the connections that another agent passes on, before anything is done with them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{SockType, getsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef};

use crate::sys::netns::socket_cookie;

/// Why a descriptor is no leg of a flow.
#[derive(Debug, thiserror::Error)]
pub enum NotALeg {
    #[error("a leg of the flow is not a TCP connection")]
    NotTcp,
    #[error("a leg of the flow is not connected: {0}")]
    NotConnected(io::Error),
    #[error("the legs of the flow are in different network namespaces")]
    Apart,
    #[error("a leg of the flow cannot be looked at: {0}")]
    Io(#[from] io::Error),
}

/// Checks that both are connections of TCP, in one network namespace, which is that of the workload. Which one that is, is for
/// whoever restores the flow to compare.
///
/// # Errors
/// If they are anything else.
pub fn check_legs(app: &OwnedFd, wire: &OwnedFd) -> Result<(), NotALeg> {
    if check_leg(app)? == check_leg(wire)? { Ok(()) } else { Err(NotALeg::Apart) }
}

/// The cookie of the namespace that the connection is in.
fn check_leg(leg: &OwnedFd) -> Result<u64, NotALeg> {
    // Of what is no socket at all, nothing else is asked.
    match getsockopt(leg, sockopt::SockType) {
        Ok(SockType::Stream) => {}
        _ => return Err(NotALeg::NotTcp),
    }
    let socket = SockRef::from(leg);
    let is_internet = matches!(socket.domain()?, Domain::IPV4 | Domain::IPV6);
    if !is_internet || socket.protocol()? != Some(Protocol::TCP) || socket.is_listener()? {
        return Err(NotALeg::NotTcp);
    }
    socket.peer_addr().map_err(NotALeg::NotConnected)?;
    Ok(socket_cookie(&leg.as_fd())?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_connections_of_tcp_are_legs() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || OwnedFd::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (app, wire) = (connect(), connect());
        check_legs(&app, &wire).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect("127.0.0.1:9").unwrap();
        let others: [OwnedFd; 4] = [
            File::open("/dev/null").unwrap().into(),
            UnixStream::pair().unwrap().0.into(),
            udp.into(),
            listener.try_clone().unwrap().into(),
        ];
        for other in others {
            assert!(matches!(check_legs(&app, &other), Err(NotALeg::NotTcp)), "{other:?}");
            assert!(matches!(check_legs(&other, &wire), Err(NotALeg::NotTcp)), "{other:?}");
        }
        let fresh = socket2::Socket::new(Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let error = check_legs(&app, &fresh.into()).unwrap_err();
        assert!(matches!(error, NotALeg::NotConnected(_)), "{error}");
    }
}
