//! Where a connection would leave from.

use std::io;
use std::net::{IpAddr, SocketAddr};

use sheath_common::flow::Asked;
use socket2::{Domain, Socket, Type};

use crate::flow::Inherited;
use crate::sys::{owner, sockopt};

/// The address from which a socket with these options would reach `destination`, in the calling thread's namespace. Nothing is
/// sent.
///
/// # Errors
/// Those of socket(2), setsockopt(2) and connect(2): that there is no route, for instance.
pub fn route_source(destination: IpAddr, inherited: &Inherited) -> io::Result<IpAddr> {
    // The discard port; connecting a UDP socket only looks the route up.
    let destination = SocketAddr::new(destination, 9);
    let make = || Socket::new(Domain::for_address(destination), Type::DGRAM, None);
    let socket = owner::run_as(inherited.owner, make)?;
    // An option of TCP alone has nothing to do with routes.
    let asked = Asked { user_timeout: 0, ..inherited.asked };
    sockopt::take_over(&socket, &asked, destination)?;
    socket.connect(&destination.into())?;
    let local = socket.local_addr()?.as_socket();
    local.map(|local| local.ip()).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_that_of_the_route() {
        let to = IpAddr::from([127, 0, 0, 9]);
        let source = route_source(to, &Inherited::default()).unwrap();
        assert_eq!(source, IpAddr::from([127, 0, 0, 1]));
    }
}
