//! Passing a socket from one process to another (SCM_RIGHTS).

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
pub use sheath_tests::lent::take;
use sheath_tests::script::Event;
use socket2::{Domain, Socket, Type};

use crate::{client, emit};

const CONNECTOR_PATIENCE: Duration = Duration::from_millis(1500);

/// Makes TCP sockets for whoever asks.
pub fn lend(path: &Path, v6: bool) {
    let listener = UnixListener::bind(path).expect("the lender's Unix socket");
    emit(&Event::Listening);
    for asker in listener.incoming() {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket to lend");
        give(&asker.expect("an asker"), &socket).expect("lending the socket");
    }
}

/// Connects whatever socket it is given, and answers with a byte: the errno, or zero.
pub fn connect_for_others(path: &Path, to: SocketAddr) {
    let listener = UnixListener::bind(path).expect("the connector's Unix socket");
    emit(&Event::Listening);
    for asker in listener.incoming() {
        let mut asker = asker.expect("an asker");
        let socket = take(&asker).expect("a socket to connect");
        let result = socket.connect(&to.into());
        let errno = result.err().as_ref().map_or(0, client::errno);
        asker.write_all(&[u8::try_from(errno).expect("a small errno")]).expect("answering");
    }
}

/// Has the connector at `path` connect a socket.
pub fn have_connected(path: &Path, socket: &Socket) -> io::Result<()> {
    let mut connector = UnixStream::connect(path)?;
    // It is the connector who waits in connect(), for as long as the socket says.
    socket.set_write_timeout(Some(CONNECTOR_PATIENCE))?;
    give(&connector, socket)?;
    let mut errno = [0];
    connector.read_exact(&mut errno)?;
    if errno[0] == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno[0].into())) }
}

pub fn give(to: &UnixStream, socket: &Socket) -> io::Result<()> {
    let fds = [socket.as_raw_fd()];
    let byte = [IoSlice::new(b"s")];
    let control = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(to.as_raw_fd(), &byte, &control, MsgFlags::empty(), None)?;
    Ok(())
}
