//! TCP sockets of a network namespace, listed and destroyed through `NETLINK_SOCK_DIAG` (sock_diag(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{
    DecodeError, DoneBuffer, ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    NlasIterator, Parseable, parse_u8, parse_u64,
};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseBuffer, InetResponseHeader, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, INET_DIAG_SKV6ONLY, IPPROTO_TCP, SOCK_DIAG_BY_FAMILY, SockDiagDestroy,
    SockDiagMessage, TCP_LISTEN,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

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
    /// What the kernel finds it by.
    id: SocketId,
}

impl TcpSocket {
    /// One that listens here.
    #[cfg(test)]
    pub fn listening(local: SocketAddr) -> Self {
        Self {
            local,
            remote: SocketAddr::new(local.ip(), 0),
            inode: 0,
            cgroup: None,
            is_v6_only: false,
            family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
            state: TCP_LISTEN,
            id: SocketId::new_v4(),
        }
    }

    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.state == TCP_LISTEN
    }

    /// The socket's cookie, as BPF programs see it.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        // Two words, the lower one first.
        u64::from_le_bytes(self.id.cookie)
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

    /// Reads what the kernel says of a socket. Of the attributes two are looked at, where they are: a dump may be long,
    /// and to take each apart would be five allocations for every socket.
    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        /// `INET_DIAG_CGROUP_ID`, `include/uapi/linux/inet_diag.h`
        const CGROUP_ID: u16 = 21;

        let InetResponseHeader { family, state, socket_id: id, inode, .. } =
            InetResponseHeader::parse(message)?;
        let (mut cgroup, mut is_v6_only) = (None, false);
        // The header is as long as its parser wants at least.
        let attributes = message.get(size_of::<InetResponseBuffer>()..).unwrap_or_default();
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            match attribute.kind() {
                CGROUP_ID => cgroup = Some(parse_u64(attribute.value())?),
                INET_DIAG_SKV6ONLY => is_v6_only = parse_u8(attribute.value())? == 1,
                _ => {}
            }
        }
        let at = |address: IpAddr, port| SocketAddr::new(address.to_canonical(), port);
        Ok(Self {
            local: at(id.source_address, id.source_port),
            remote: at(id.destination_address, id.destination_port),
            inode,
            cgroup,
            is_v6_only,
            family,
            state,
            id,
        })
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
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        Ok(Self { fd })
    }

    /// TCP sockets of both families in a state that can carry data, and those that listen.
    pub fn tcp_sockets(&self) -> io::Result<Vec<TcpSocket>> {
        self.list(
            StateFlags::ESTABLISHED
                | StateFlags::SYN_SENT
                | StateFlags::SYN_RECV
                | StateFlags::FIN_WAIT1
                | StateFlags::FIN_WAIT2
                | StateFlags::CLOSE_WAIT
                | StateFlags::LISTEN,
        )
    }

    /// TCP sockets of both families that listen.
    pub fn tcp_listeners(&self) -> io::Result<Vec<TcpSocket>> {
        self.list(StateFlags::LISTEN)
    }

    fn list(&self, states: StateFlags) -> io::Result<Vec<TcpSocket>> {
        let mut sockets = Vec::new();
        for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            self.send(NLM_F_DUMP, request(family, states.clone(), any))?;
            self.collect(&mut sockets)?;
        }
        Ok(sockets)
    }

    /// Aborts a connection: its owner sees `ECONNABORTED`, its peer a reset.
    ///
    /// # Errors
    /// Those of the kernel: `NotFound` if the connection is gone.
    pub fn destroy(&self, socket: &TcpSocket) -> io::Result<()> {
        let request = request(socket.family, StateFlags::all(), socket.id.clone());
        self.send(NLM_F_ACK, SockDiagDestroy::new(request))?;
        self.collect(&mut Vec::new())
    }

    fn send<M>(&self, flags: u16, request: M) -> io::Result<()>
    where
        M: NetlinkSerializable + Into<NetlinkPayload<M>>,
    {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, request.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads messages up to the end of a dump or an acknowledgement.
    fn collect(&self, sockets: &mut Vec<TcpSocket>) -> io::Result<()> {
        // The kernel gives no more than half of it at once.
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            let received = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if take(&buffer[..received], sockets)? {
                return Ok(());
            }
        }
    }
}

fn request(family: u8, states: StateFlags, socket_id: SocketId) -> SockDiagMessage {
    let extensions = ExtensionFlags::empty();
    let protocol = IPPROTO_TCP;
    SockDiagMessage::InetRequest(InetRequest { family, protocol, extensions, states, socket_id })
}

/// Takes messages in. True at the end of a dump, and for an acknowledgement.
///
/// # Errors
/// What the kernel has answered; `InvalidData` if that cannot be read, since a socket that is not seen would be taken for
/// one that is not there.
fn take(mut messages: &[u8], sockets: &mut Vec<TcpSocket>) -> io::Result<bool> {
    while !messages.is_empty() {
        let message = NetlinkBuffer::new_checked(messages).map_err(unreadable)?;
        match message.message_type() {
            NLMSG_DONE => {
                let done = DoneBuffer::new_checked(message.payload()).map_err(unreadable)?;
                return or_error(done.code()).map(|()| true);
            }
            NLMSG_ERROR => {
                let error = ErrorBuffer::new_checked(message.payload()).map_err(unreadable)?;
                return or_error(error.code().map_or(0, i32::from)).map(|()| true);
            }
            SOCK_DIAG_BY_FAMILY => {
                sockets.push(TcpSocket::parse(message.payload()).map_err(unreadable)?);
            }
            other => return Err(unreadable(format!("a message of type {other}").into())),
        }
        // Each begins at a multiple of four.
        let length = (message.length() as usize).next_multiple_of(4);
        messages = messages.get(length..).unwrap_or_default();
    }
    Ok(false)
}

/// As the kernel says it: zero, or an error below it.
fn or_error(code: i32) -> io::Result<()> {
    if code < 0 { Err(io::Error::from_raw_os_error(code.saturating_neg())) } else { Ok(()) }
}

fn unreadable(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

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

    /// A message of a type, as netlink frames it.
    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 16 + payload.len()];
        let mut message = NetlinkBuffer::new(&mut bytes);
        message.set_length(16 + payload.len() as u32);
        message.set_message_type(kind);
        message.payload_mut().copy_from_slice(payload);
        bytes
    }

    /// An answer about a socket.
    fn answer(attributes: &[u8]) -> Vec<u8> {
        let mut payload = vec![AF_INET; size_of::<InetResponseBuffer>()];
        payload.extend_from_slice(attributes);
        message(SOCK_DIAG_BY_FAMILY, &payload)
    }

    #[test]
    fn what_cannot_be_read_is_no_answer() {
        let mut sockets = Vec::new();
        let whole = answer(&[]);
        assert!(!take(&whole, &mut sockets).unwrap());
        assert_eq!(sockets.len(), 1);
        let too_long_an_attribute = answer(&[9, 0, 21, 0, 1]);
        let no_cgroup = answer(&[5, 0, 21, 0, 1]);
        for bytes in [&whole[..whole.len() - 1], &[0; 16], &too_long_an_attribute, &no_cgroup] {
            let error = take(bytes, &mut sockets).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        assert_eq!(sockets.len(), 1);
    }

    #[test]
    fn an_answer_ends_with_what_the_kernel_has_to_say_of_it() {
        let denied = (-libc::EPERM).to_ne_bytes();
        for kind in [NLMSG_DONE, NLMSG_ERROR] {
            let error = take(&message(kind, &denied), &mut Vec::new()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            assert!(take(&message(kind, &[0; 4]), &mut Vec::new()).unwrap());
        }
        let mut sockets = Vec::new();
        let several = [answer(&[]), answer(&[]), message(NLMSG_DONE, &[0; 4])].concat();
        assert!(take(&several, &mut sockets).unwrap());
        assert_eq!(sockets.len(), 2);
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange_to_be_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            kind in 0_u16..25,
        ) {
            let _ = take(&bytes, &mut Vec::new());
            let _ = take(&message(kind, &payload), &mut Vec::new());
        }
    }
}
