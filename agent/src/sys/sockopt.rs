//! Socket options with a meaning for the relay.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use sheath_common::flow::Asked;
use socket2::{SockRef, Socket, TcpKeepalive};

/// Probes that a peer may leave unanswered.
const PROBES: u32 = 6;

/// Sets up either leg of a flow.
///
/// Closing it sends a reset until [`close_gracefully`] says otherwise, so that nothing that ends early, the
/// death of the agent included, looks like a clean end to the application. Urgent bytes stay in the stream,
/// where the application on the other side finds them in their place. Whether the peer is still there is asked on
/// the wire alone ([`probe_peer`]): at both ends of loopback is the same kernel.
pub fn prepare_leg<'s, S>(socket: &'s S) -> io::Result<()>
where
    SockRef<'s>: From<&'s S>,
{
    let socket = SockRef::from(socket);
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)
}

/// Both directions have ended in order: closing the socket shall not reset it.
pub fn close_gracefully<'s, S>(socket: &'s S) -> io::Result<()>
where
    SockRef<'s>: From<&'s S>,
{
    SockRef::from(socket).set_linger(None)
}

/// Acknowledges what was read, if it is not yet (tcp(7), `TCP_QUICKACK`).
pub fn acknowledge<'s, S>(socket: &'s S) -> io::Result<()>
where
    SockRef<'s>: From<&'s S>,
{
    SockRef::from(socket).set_tcp_quickack(true)
}

/// Sets the options that the application has set on its own socket on a wire leg that is about to connect.
pub fn take_over(socket: &Socket, asked: &Asked, destination: SocketAddr) -> io::Result<()> {
    if asked.traffic_class != 0 {
        match destination {
            SocketAddr::V4(_) => socket.set_tos_v4(asked.traffic_class)?,
            SocketAddr::V6(_) => socket.set_tclass_v6(asked.traffic_class)?,
        }
    }
    // Behind the traffic class, which changes it (ip(7), IP_TOS).
    if asked.priority != 0 {
        socket.set_priority(asked.priority)?;
    }
    if asked.mark != 0 {
        socket.set_mark(asked.mark)?;
    }
    if asked.user_timeout != 0 {
        let timeout = Duration::from_millis(asked.user_timeout.into());
        socket.set_tcp_user_timeout(Some(timeout))?;
    }
    Ok(())
}

/// Sets up how soon a peer is given up that is silent while nothing is under way: after `limit`, or earlier if the
/// application has asked for it.
pub fn probe_peer<'s, S>(socket: &'s S, limit: Option<Duration>, asked: &Asked) -> io::Result<()>
where
    SockRef<'s>: From<&'s S>,
{
    let socket = SockRef::from(socket);
    match keepalive(limit, asked) {
        Some(keepalive) => socket.set_tcp_keepalive(&TcpKeepalive::from(keepalive)),
        None => socket.set_keepalive(false),
    }
}

/// How a silent peer is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keepalive {
    time: Duration,
    interval: Duration,
    probes: u32,
}

impl Keepalive {
    /// How long it takes to give a peer up that has once not answered.
    fn doubt(&self) -> Duration {
        self.interval * self.probes
    }
}

impl From<Keepalive> for TcpKeepalive {
    fn from(keepalive: Keepalive) -> Self {
        Self::new()
            .with_time(keepalive.time)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.probes)
    }
}

fn keepalive(limit: Option<Duration>, asked: &Asked) -> Option<Keepalive> {
    const SECOND: Duration = Duration::from_secs(1);
    let own = limit.map(|limit| Keepalive {
        time: Duration::from_secs((limit / 2).as_secs()).max(SECOND),
        interval: Duration::from_secs((limit / 2 / PROBES).as_secs()).max(SECOND),
        probes: PROBES,
    });
    let asked = (asked.keepalive_time != 0).then(|| Keepalive {
        time: Duration::from_secs(asked.keepalive_time.into()),
        interval: Duration::from_secs(asked.keepalive_interval.max(1).into()),
        probes: asked.keepalive_probes.max(1),
    });
    match (own, asked) {
        (Some(own), Some(asked)) => {
            let sooner = if asked.doubt() < own.doubt() { asked } else { own };
            Some(Keepalive { time: own.time.min(asked.time), ..sooner })
        }
        (own, asked) => own.or(asked),
    }
}

/// Has a socket that is bound to an address choose its port when it connects, and for that destination alone: one that is
/// chosen earlier is taken from all destinations (ip(7), `IP_BIND_ADDRESS_NO_PORT`).
pub fn choose_port_late(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, IpBindAddressNoPort, &true)?)
}

/// What a peer owes, and how long it has been silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Bytes that were given to the kernel and that the peer has not acknowledged.
    pub unacknowledged: usize,
    /// Since the last packet from it.
    pub silent: Duration,
    /// How often the oldest of them have been sent again in vain.
    pub retransmissions: u32,
    /// How often the peer, which had no room for more, was asked in vain.
    pub probes: u32,
}

pub fn answers(socket: &impl AsRawFd) -> io::Result<Answers> {
    // SAFETY: all of its fields are integers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: value and length point to live memory, and the kernel writes no more than the length says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Answers {
        unacknowledged: unacknowledged(socket)?,
        silent: Duration::from_millis(info.tcpi_last_ack_recv.into()),
        retransmissions: info.tcpi_retransmits.into(),
        probes: info.tcpi_probes.into(),
    })
}

/// Bytes that were given to the kernel and that the peer has not acknowledged (tcp(7), `SIOCOUTQ`).
pub fn unacknowledged(socket: &impl AsRawFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, to which the argument points. `SIOCOUTQ` is another name of it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(time: u32, interval: u32, probes: u32) -> Asked {
        Asked {
            keepalive_time: time,
            keepalive_interval: interval,
            keepalive_probes: probes,
            ..Asked::default()
        }
    }

    fn seconds(time: u64, interval: u64, probes: u32) -> Option<Keepalive> {
        let (time, interval) = (Duration::from_secs(time), Duration::from_secs(interval));
        Some(Keepalive { time, interval, probes })
    }

    #[test]
    fn a_silent_peer_is_given_up_as_soon_as_either_the_application_or_the_setting_wants() {
        let limit = Some(Duration::from_secs(120));
        assert_eq!(keepalive(limit, &Asked::default()), seconds(60, 10, 6));
        // What many applications leave at the kernel's defaults.
        assert_eq!(keepalive(limit, &asked(7_200, 75, 9)), seconds(60, 10, 6));
        assert_eq!(keepalive(limit, &asked(10, 5, 3)), seconds(10, 5, 3));
        assert_eq!(keepalive(limit, &asked(10, 75, 9)), seconds(10, 10, 6));
        assert_eq!(keepalive(None, &asked(10, 75, 9)), seconds(10, 75, 9));
        assert_eq!(keepalive(None, &Asked::default()), None);
        assert_eq!(keepalive(Some(Duration::from_secs(5)), &Asked::default()), seconds(2, 1, 6));
    }
}
