//! Passing a socket from one process to another (SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use sheath_tests::script::Event;
use socket2::{Domain, Socket, Type};

use crate::emit;

/// Makes TCP sockets for whoever asks.
pub fn lend(path: &Path, v6: bool) {
    let listener = UnixListener::bind(path).expect("the lender's Unix socket");
    emit(&Event::Listening);
    for asker in listener.incoming() {
        let asker = asker.expect("an asker");
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket to lend");
        let fds = [socket.as_raw_fd()];
        sendmsg::<UnixAddr>(
            asker.as_raw_fd(),
            &[IoSlice::new(b"s")],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            None,
        )
        .expect("lending the socket");
    }
}

/// Asks the lender at `path` for a socket.
pub fn borrow(path: &Path) -> io::Result<Socket> {
    let lender = UnixStream::connect(path)?;
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<UnixAddr>(
        lender.as_raw_fd(),
        &mut data,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let fd = message
        .cmsgs()?
        .find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        })
        .expect("a descriptor from the lender");
    // SAFETY: the kernel just installed this descriptor for us alone.
    Ok(unsafe { Socket::from_raw_fd(fd) })
}
