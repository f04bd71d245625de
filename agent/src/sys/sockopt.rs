//! Socket options with a meaning for the relay.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// How long a silent peer is believed to be alive: probes start after a minute and give up after another.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(6);

/// Sets up either leg of a flow.
///
/// Closing it sends a reset until [`close_gracefully`] says otherwise, so that nothing that ends early, the
/// death of the agent included, looks like a clean end to the application. Urgent bytes stay in the stream,
/// where the application on the other side finds them in their place.
pub fn prepare_leg<'s, S>(socket: &'s S) -> io::Result<()>
where
    SockRef<'s>: From<&'s S>,
{
    let socket = SockRef::from(socket);
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    socket.set_keepalive(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)
}

/// Both directions have ended in order: closing the socket shall not reset it.
pub fn close_gracefully<'s, S>(socket: &'s S) -> io::Result<()>
where
    SockRef<'s>: From<&'s S>,
{
    SockRef::from(socket).set_linger(None)
}
