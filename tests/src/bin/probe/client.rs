//! Making a client's socket in every way an application may, and connecting it.

use std::fs;
use std::io;
use std::net::{Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use sheath_tests::script::{
    Asked, Buffers, Connection, FastOpen, Origin, Socket as Options, Step, patience,
};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use crate::lend;
use crate::matrix;
use crate::play::{self, Endpoint};
use crate::uring::Ring;

/// Connects and plays the steps.
pub fn run(options: &Options, to: SocketAddr, steps: &[Step]) -> Connection {
    let to = if options.mapped { mapped(to) } else { to };
    let started = Instant::now();
    match open(options, to) {
        Ok(endpoint) => {
            let connect_ms = elapsed_ms(started);
            Connection { connect_ms, ..play::run(endpoint, steps) }
        }
        Err(error) => Connection {
            error: Some(errno(&error)),
            connect_ms: elapsed_ms(started),
            ..Connection::default()
        },
    }
}

pub fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap()
}

/// The errno behind an error; what has none is a fault of the probe.
pub fn errno(error: &io::Error) -> i32 {
    match error.raw_os_error() {
        // A connect() that outlasts SO_SNDTIMEO reports that it is still going on.
        Some(libc::EINPROGRESS) => libc::ETIMEDOUT,
        Some(errno) => errno,
        None if error.kind() == io::ErrorKind::UnexpectedEof => libc::ENODATA,
        None => panic!("{error}"),
    }
}

/// Ends sending. On a connection that was reset meanwhile, shutdown() says only that there is none
/// (ENOTCONN); the reset is the news.
pub fn end_sending(socket: &Socket) -> io::Result<()> {
    socket.shutdown(Shutdown::Write).map_err(|error| match socket.take_error() {
        Ok(Some(reset)) => reset,
        _ => error,
    })
}

/// A connected plain socket.
pub fn connect(to: SocketAddr) -> io::Result<Socket> {
    open(&Options::default(), to).map(|endpoint| endpoint.socket)
}

fn open(options: &Options, to: SocketAddr) -> io::Result<Endpoint> {
    let socket = make(options, to)?;
    if options.pause {
        play::pause(1);
    }
    ask(&socket, &options.asked, to)?;
    if let Some(Buffers::Early(bytes)) = options.buffers {
        set_buffers(&socket, bytes)?;
    }
    if let Some(user) = options.user {
        become_user(user)?;
    }
    let limit = options.connect_limit.map_or_else(patience, Duration::from_millis);
    socket.set_write_timeout(Some(limit))?;
    socket.set_read_timeout(Some(patience()))?;
    if let Some(source) = options.bind {
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    if let Some(device) = &options.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if let Some(stop) = options.source_route {
        matrix::set_source_route(&socket, &to, &[stop])?;
    }
    let address = SockAddr::from(to);
    let mut ring = options.io_uring.map(Ring::new).transpose()?;
    match (&options.fast_open, &mut ring) {
        _ if matches!(options.origin, Origin::ConnectedBy(_)) => {}
        (_, Some(ring)) => ring.connect(&socket, &address)?,
        (FastOpen::Send(text), _) => {
            socket.send_to_with_flags(text.as_bytes(), &address, libc::MSG_FASTOPEN)?;
        }
        (FastOpen::Connect, _) => {
            set_fast_open_connect(&socket)?;
            socket.connect(&address)?;
        }
        (FastOpen::No, _) => socket.connect(&address)?,
    }
    socket.set_write_timeout(Some(patience()))?;
    if let Some(Buffers::Late(bytes)) = options.buffers {
        set_buffers(&socket, bytes)?;
    }
    Ok(Endpoint { socket, ring, pauses: usize::from(options.pause) })
}

fn make(options: &Options, to: SocketAddr) -> io::Result<Socket> {
    let protocol = if options.mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let here = || Socket::new(Domain::for_address(to), Type::STREAM, Some(protocol));
    match &options.origin {
        Origin::Here => here(),
        Origin::Lent(path) => sheath_tests::lent::borrow(path),
        Origin::ConnectedBy(path) => {
            let socket = here()?;
            lend::have_connected(path, &socket)?;
            Ok(socket)
        }
        Origin::BeforeMovingTo(procs) => {
            let socket = here()?;
            fs::write(procs, "0")?;
            Ok(socket)
        }
    }
}

fn ask(socket: &Socket, asked: &Asked, to: SocketAddr) -> io::Result<()> {
    if let Some(class) = asked.traffic_class {
        if to.is_ipv4() { socket.set_tos_v4(class) } else { socket.set_tclass_v6(class) }?;
    }
    asked.priority.map_or(Ok(()), |priority| socket.set_priority(priority))?;
    asked.mark.map_or(Ok(()), |mark| socket.set_mark(mark))?;
    if let Some(milliseconds) = asked.user_timeout {
        socket.set_tcp_user_timeout(Some(Duration::from_millis(milliseconds)))?;
    }
    if let Some(seconds) = asked.keepalive {
        let every = Duration::from_secs(seconds);
        let keepalive = TcpKeepalive::new().with_time(every).with_interval(every);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

pub fn set_buffers(socket: &Socket, bytes: usize) -> io::Result<()> {
    socket.set_send_buffer_size(bytes)?;
    socket.set_recv_buffer_size(bytes)
}

fn become_user(user: u32) -> io::Result<()> {
    nix::unistd::setgid(user.into())?;
    Ok(nix::unistd::setuid(user.into())?)
}

fn mapped(to: SocketAddr) -> SocketAddr {
    let ip: Ipv6Addr = match to.ip() {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        std::net::IpAddr::V6(v6) => v6,
    };
    (ip, to.port()).into()
}

fn set_fast_open_connect(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is a live c_int and its size is passed with it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN_CONNECT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
