//! TCP sockets of a network namespace, listed and destroyed through `NETLINK_SOCK_DIAG` (sock_diag(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const NLMSG_HEADER: usize = 16;
/// `struct inet_diag_req_v2`
const REQUEST: usize = 56;
/// `struct inet_diag_msg`
const ANSWER: usize = 72;

/// `TCP_LISTEN`
const LISTEN: u8 = 10;
/// SYN_SENT, SYN_RECV, ESTABLISHED and the half-closed states, everything that can still carry data; LISTEN.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << LISTEN;

/// A TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Inode number: what `/proc/<pid>/fd` shows as `socket:[inode]`.
    pub inode: u32,
    /// Id of the cgroup it was made in.
    pub cgroup: Option<u64>,
    /// An IPv6 socket that has nothing to do with IPv4.
    is_v6_only: bool,
    family: u8,
    state: u8,
    /// `struct inet_diag_sockid`, as the kernel sent it.
    id: [u8; 48],
}

impl TcpSocket {
    /// One that listens here.
    #[cfg(test)]
    pub fn listening(local: SocketAddr) -> Self {
        let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        Self {
            local,
            remote: SocketAddr::new(local.ip(), 0),
            inode: 0,
            cgroup: None,
            is_v6_only: false,
            family: family as u8,
            state: LISTEN,
            id: [0; 48],
        }
    }

    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.state == LISTEN
    }

    /// The socket's cookie, as BPF programs see it.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        let word = |at: usize| {
            u32::from_ne_bytes([self.id[at], self.id[at + 1], self.id[at + 2], self.id[at + 3]])
        };
        u64::from(word(44)) << 32 | u64::from(word(40))
    }

    /// Where it listens: the unspecified address of a family stands for all of them.
    #[must_use]
    pub fn listens_at(&self) -> Vec<IpAddr> {
        let address = self.local.ip();
        match address {
            IpAddr::V6(v6) if v6.is_unspecified() && !self.is_v6_only => {
                vec![address, Ipv4Addr::UNSPECIFIED.into()]
            }
            _ => vec![address],
        }
    }
}

/// A netlink socket of the namespace it was opened in.
#[derive(Debug)]
pub struct SockDiag {
    fd: OwnedFd,
}

impl SockDiag {
    /// Opens it in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        // SAFETY: plain system call; the descriptor is owned at once.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
                libc::NETLINK_SOCK_DIAG,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// TCP sockets of both families in a state that can carry data, and those that listen.
    pub fn tcp_sockets(&self) -> io::Result<Vec<TcpSocket>> {
        self.list(STATES)
    }

    /// TCP sockets of both families that listen.
    pub fn tcp_listeners(&self) -> io::Result<Vec<TcpSocket>> {
        self.list(1 << LISTEN)
    }

    fn list(&self, states: u32) -> io::Result<Vec<TcpSocket>> {
        let mut sockets = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let request = request(family as u8, states, &[0; 48]);
            self.send(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, &request)?;
            self.collect(&mut sockets)?;
        }
        Ok(sockets)
    }

    /// Aborts a connection: its owner sees `ECONNABORTED`, its peer a reset.
    pub fn destroy(&self, socket: &TcpSocket) -> io::Result<()> {
        let request = request(socket.family, u32::MAX, &socket.id);
        self.send(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, &request)?;
        self.collect(&mut Vec::new())
    }

    fn send(&self, kind: u16, flags: u16, request: &[u8; REQUEST]) -> io::Result<()> {
        let mut message = Vec::with_capacity(NLMSG_HEADER + REQUEST);
        message.extend_from_slice(&((NLMSG_HEADER + REQUEST) as u32).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(request);
        // SAFETY: the buffer is live for the call.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads messages up to the end of a dump or an acknowledgement.
    fn collect(&self, sockets: &mut Vec<TcpSocket>) -> io::Result<()> {
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            // SAFETY: the buffer is live and as long as said.
            let received = unsafe {
                libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
            };
            if received < 0 {
                return Err(io::Error::last_os_error());
            }
            let mut rest = &buffer[..received as usize];
            while let Some((kind, payload, following)) = split_message(rest) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return acknowledgement(payload),
                    _ => sockets.extend(parse(payload)),
                }
                rest = following;
            }
        }
    }
}

fn request(family: u8, states: u32, id: &[u8; 48]) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    request[0] = family;
    request[1] = libc::IPPROTO_TCP as u8;
    request[4..8].copy_from_slice(&states.to_ne_bytes());
    request[8..].copy_from_slice(id);
    request
}

/// Type and payload of the first message, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(NLMSG_HEADER..len)?;
    let aligned = len.checked_add(3)? & !3;
    Some((kind, payload, bytes.get(aligned..).unwrap_or_default()))
}

fn acknowledgement(payload: &[u8]) -> io::Result<()> {
    let errno =
        payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-errno)) }
}

/// The value of an attribute behind the fixed part of a message (`struct nlattr`, netlink(7)).
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    const HEADER: usize = 4;
    loop {
        let len = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..HEADER)?.try_into().ok()?);
        let value = attributes.get(HEADER..len)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get((len + 3) & !3..)?;
    }
}

fn parse(message: &[u8]) -> Option<TcpSocket> {
    /// `INET_DIAG_SKV6ONLY`, `INET_DIAG_CGROUP_ID`
    const V6_ONLY: u16 = 11;
    const CGROUP_ID: u16 = 21;

    let attributes = message.get(ANSWER..)?;
    let message = message.get(..ANSWER)?;
    let family = message[0];
    let id: [u8; 48] = message[4..52].try_into().ok()?;
    let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
    let address = |at: usize| -> Option<IpAddr> {
        if i32::from(family) == libc::AF_INET {
            let octets: [u8; 4] = id[at..at + 4].try_into().ok()?;
            Some(Ipv4Addr::from(octets).into())
        } else {
            let octets: [u8; 16] = id[at..at + 16].try_into().ok()?;
            Some(Ipv6Addr::from(octets).to_canonical())
        }
    };
    Some(TcpSocket {
        local: SocketAddr::new(address(4)?, port(0)),
        remote: SocketAddr::new(address(20)?, port(2)),
        inode: u32::from_ne_bytes(message[68..72].try_into().ok()?),
        cgroup: attribute(attributes, CGROUP_ID)
            .and_then(|value| value.try_into().ok())
            .map(u64::from_ne_bytes),
        is_v6_only: attribute(attributes, V6_ONLY).is_some_and(|value| value.first() == Some(&1)),
        family,
        state: message[1],
        id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;

    fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn inode(stream: &TcpStream) -> u32 {
        let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
        std::fs::metadata(path).unwrap().ino() as u32
    }

    #[test]
    fn lists_sockets_of_both_families_with_addresses_and_inodes() {
        for address in ["127.0.0.1", "::1"] {
            let (client, _server) = pair(address);
            let sockets = SockDiag::open().unwrap().tcp_sockets().unwrap();
            let found = sockets.iter().find(|s| s.inode == inode(&client)).unwrap();
            assert_eq!(found.local, client.local_addr().unwrap());
            assert_eq!(found.remote, client.peer_addr().unwrap());
        }
    }

    #[test]
    fn a_listener_tells_where_it_listens_and_whose_it_is() {
        let cases: [(&str, bool, &[&str]); 4] = [
            ("0.0.0.0", false, &["0.0.0.0"]),
            ("127.0.0.1", false, &["127.0.0.1"]),
            ("::", false, &["::", "0.0.0.0"]),
            ("::", true, &["::"]),
        ];
        for (address, v6_only, expected) in cases {
            let address: IpAddr = address.parse().unwrap();
            let at = SocketAddr::new(address, 0);
            let domain = socket2::Domain::for_address(at);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
            if address.is_ipv6() {
                socket.set_only_v6(v6_only).unwrap();
            }
            socket.bind(&at.into()).unwrap();
            socket.listen(1).unwrap();
            let listener = TcpListener::from(socket);
            let port = listener.local_addr().unwrap().port();
            let listeners = SockDiag::open().unwrap().tcp_listeners().unwrap();
            let found = listeners.iter().find(|s| s.local.port() == port).unwrap();
            let expected: Vec<IpAddr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(found.listens_at(), expected, "{address} {v6_only}");
            assert!(found.is_listening() && found.cgroup.is_some(), "{found:?}");
        }
    }

    #[test]
    fn destroys_one_connection_and_no_other() {
        let (client, _server) = pair("127.0.0.1");
        let (other, _other_server) = pair("127.0.0.1");
        let diag = SockDiag::open().unwrap();
        let sockets = diag.tcp_sockets().unwrap();
        let found = sockets.iter().find(|s| s.inode == inode(&client)).unwrap();
        diag.destroy(found).unwrap();
        let sockets = diag.tcp_sockets().unwrap();
        assert!(sockets.iter().all(|s| s.inode != inode(&client)));
        assert!(sockets.iter().any(|s| s.inode == inode(&other)));
    }

    #[test]
    fn a_truncated_answer_is_no_socket() {
        assert_eq!(parse(&[2; ANSWER - 1]), None);
        assert!(split_message(&[200, 0, 0, 0, 1]).is_none());
    }
}
