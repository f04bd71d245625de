//! Sockets that were made by another process, in its cgroup and its namespace (SCM_RIGHTS).

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use socket2::Socket;

use crate::names;
use crate::place::Place;
use crate::probe::Probe;
use crate::script::Job;

/// A listening socket of a place, for a server that runs in the test itself. `dir` is for a Unix socket.
#[track_caller]
pub fn listener(place: &Place, dir: &Path, listen: SocketAddr) -> TcpListener {
    let path = dir.join(names::unique());
    let _lender = Probe::start(place, &Job::Lender { path: path.clone(), v6: listen.is_ipv6() });
    let socket = borrow(&path).expect("a socket of the place");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&listen.into()).expect("the address of the place");
    socket.listen(128).expect("a listening socket");
    socket.into()
}

/// Asks the lender at `path` for a socket.
///
/// # Errors
/// If the lender does not answer, or sends no socket.
pub fn borrow(path: &Path) -> io::Result<Socket> {
    take(&UnixStream::connect(path)?)
}

/// Takes the socket that comes over a Unix socket.
///
/// # Errors
/// If none comes.
pub fn take(from: &UnixStream) -> io::Result<Socket> {
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<UnixAddr>(
        from.as_raw_fd(),
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
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    // SAFETY: the kernel just installed this descriptor for us alone.
    Ok(unsafe { Socket::from_raw_fd(fd) })
}
