//! Playing a [`Matrix`]: many cases at a time, none waited for longer than it may take to leave.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sheath_tests::matrix::{Afterwards, Case, Favour, Matrix, Opening, Origin, Prepared};
use sheath_tests::script::{Event, Tally};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{client, emit, lend};

const THREADS: usize = 48;
/// For a connection to come to be. What leaves in plaintext leaves at once.
const OPENING_MS: u16 = 100;
/// For the bytes of one that has come to be to leave.
const SENDING: Duration = Duration::from_millis(5);

const TCP_FASTOPEN_NO_COOKIE: libc::c_int = 34;

/// Plays every case and tells how each ended.
pub fn run(matrix: &Matrix) {
    let cases = matrix.cases();
    let next = AtomicUsize::new(0);
    let results: Vec<Vec<Option<i32>>> = thread::scope(|scope| {
        let work = || {
            let mut seen = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((case, to)) = cases.get(number) else {
                    return seen;
                };
                let text = matrix.text(number);
                seen.push(attempt(matrix, case, *to, &text).err().as_ref().map(client::errno));
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread of cases")).collect()
    });
    let results: Vec<Option<i32>> = results.into_iter().flatten().collect();
    let errors: Vec<i32> = results.iter().flatten().copied().collect();
    emit(&Event::Tally(Tally { ok: results.len() - errors.len(), errors }));
}

fn attempt(matrix: &Matrix, case: &Case, to: SocketAddr, text: &str) -> io::Result<()> {
    let to = destination(case, to);
    let socket = match case.origin {
        Origin::Lent => ask(
            &matrix.accomplice,
            &Favour::Make {
                case: *case,
                to,
                device: matrix.device.clone(),
                via: matrix.via.clone(),
            },
        )?,
        Origin::Own | Origin::ConnectedOutside => make(case, to, &matrix.device, &matrix.via)?,
    };
    socket.set_nonblocking(true)?;
    let address = SockAddr::from(to);
    match case.opening {
        Opening::Connect if case.origin == Origin::ConnectedOutside => {
            have_connected(&matrix.accomplice, &socket, to)?;
        }
        Opening::Connect => pending(socket.connect(&address))?,
        Opening::FastOpenSend => {
            set(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &[1, 0, 0, 0])?;
            let sent = socket.send_to_with_flags(text.as_bytes(), &address, libc::MSG_FASTOPEN);
            pending(sent.map(|_| ()))?;
        }
        Opening::FastOpenConnect => {
            set(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &[1, 0, 0, 0])?;
            set(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &[1, 0, 0, 0])?;
            pending(socket.connect(&address))?;
        }
    }
    match case.afterwards {
        Afterwards::Nothing => {}
        Afterwards::Device => socket.bind_device(Some(matrix.device.as_bytes()))?,
        Afterwards::SourceRoute => set_source_route(&socket, &to, &matrix.via)?,
    }
    // Twice: at once for those that send with their SYN, and once the connection is there.
    let _ = socket.send_with_flags(text.as_bytes(), libc::MSG_NOSIGNAL);
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let _ = poll(&mut fds, PollTimeout::from(OPENING_MS));
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    pending(socket.send_with_flags(text.as_bytes(), libc::MSG_NOSIGNAL).map(|_| ()))?;
    thread::sleep(SENDING);
    Ok(())
}

/// What is still going on is no failure yet.
fn pending(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EAGAIN)) => {
            Ok(())
        }
        result => result,
    }
}

fn destination(case: &Case, to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(v4) if case.kind.is_mapped() => (v4.to_ipv6_mapped(), to.port()).into(),
        _ => to,
    }
}

fn make(case: &Case, to: SocketAddr, device: &str, via: &[IpAddr]) -> io::Result<Socket> {
    let protocol = if case.kind.is_mptcp() { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(protocol))?;
    match case.prepared {
        Prepared::Plain => {}
        Prepared::Device => socket.bind_device(Some(device.as_bytes()))?,
        Prepared::Loopback => socket.bind_device(Some(b"lo"))?,
        Prepared::SourceRoute => set_source_route(&socket, &to, via)?,
        Prepared::DeviceAndSourceRoute => {
            socket.bind_device(Some(device.as_bytes()))?;
            set_source_route(&socket, &to, via)?;
        }
    }
    Ok(socket)
}

/// By way of the first host of the destination's family.
pub fn set_source_route(socket: &Socket, to: &SocketAddr, via: &[IpAddr]) -> io::Result<()> {
    let is_v4 = to.ip().to_canonical().is_ipv4();
    match via.iter().find(|stop| stop.is_ipv4() == is_v4) {
        Some(IpAddr::V4(stop)) => {
            // RFC 791, 3.1: loose source and record route, padded.
            let mut option = vec![131, 7, 4];
            option.extend(stop.octets());
            option.push(0);
            set(socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &option)
        }
        Some(IpAddr::V6(stop)) => {
            // RFC 8754, 2: next header, length, type 4, segments left, last entry, flags, tag, segments.
            let mut header = vec![0, 4, 4, 1, 1, 0, 0, 0];
            header.extend(Ipv6Addr::UNSPECIFIED.octets());
            header.extend(stop.octets());
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header)
        }
        None => Ok(()),
    }
}

fn set(socket: &Socket, level: libc::c_int, name: libc::c_int, value: &[u8]) -> io::Result<()> {
    // SAFETY: the value is live for the call, and its length is passed with it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

// ---- the accomplice ------------------------------------------------------------------------------------

/// Does favours for whoever asks at the Unix socket: makes sockets, and connects them.
pub fn help(path: &Path) {
    let listener = UnixListener::bind(path).expect("the accomplice's Unix socket");
    emit(&Event::Listening);
    for asker in listener.incoming() {
        let asker = asker.expect("an asker");
        thread::spawn(move || {
            // Whoever asked for what cannot be done is told by the end of the connection.
            let _ = answer(asker);
        });
    }
}

fn answer(mut asker: UnixStream) -> io::Result<()> {
    let mut length = [0; 4];
    asker.read_exact(&mut length)?;
    let mut favour = vec![0; u32::from_be_bytes(length) as usize];
    asker.read_exact(&mut favour)?;
    match serde_json::from_slice(&favour)? {
        Favour::Make { case, to, device, via } => {
            lend::give(&asker, &make(&case, to, &device, &via)?)
        }
        Favour::Connect { to } => {
            let socket = lend::take(&asker)?;
            socket.set_nonblocking(true)?;
            pending(socket.connect(&to.into()))?;
            asker.write_all(&[0])
        }
    }
}

fn say(path: &Path, favour: &Favour) -> io::Result<UnixStream> {
    let mut accomplice = UnixStream::connect(path)?;
    let favour = serde_json::to_vec(favour)?;
    accomplice.write_all(&(favour.len() as u32).to_be_bytes())?;
    accomplice.write_all(&favour)?;
    Ok(accomplice)
}

/// Asks for a socket. One that the accomplice could not make is `EINVAL`.
fn ask(path: &Path, favour: &Favour) -> io::Result<Socket> {
    let accomplice = say(path, favour)?;
    lend::take(&accomplice).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn have_connected(path: &Path, socket: &Socket, to: SocketAddr) -> io::Result<()> {
    let mut accomplice = say(path, &Favour::Connect { to })?;
    lend::give(&accomplice, socket)?;
    accomplice.read_exact(&mut [0]).map_err(|_| io::Error::from_raw_os_error(libc::EACCES))
}
