//! A server that plays one script on every connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use sheath_tests::script::{Buffers, Connection, Event, ListenerOptions, Step, patience};
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::set_buffers;
use crate::play::{self, Endpoint};
use crate::{emit, gate};

/// Thousands of connections have a thread each.
const STACK: usize = 256 * 1024;

const SMALL_BUFFER: usize = 16 * 1024;

pub fn run(listen: SocketAddr, options: &ListenerOptions, steps: &[Step]) {
    let listener = listener(listen, options).expect("the listening socket");
    if let Some(procs) = &options.moves_to {
        std::fs::write(procs, "0").expect("moving to another cgroup");
    }
    if options.leaves {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
    }
    let steps: Arc<[Step]> = steps.into();
    let (late, buffers) = (options.late, options.buffers);
    if !options.headless {
        emit(&Event::Listening);
        return serve(&listener, late, buffers, &steps);
    }
    thread::spawn(move || {
        // The harness may look at the process from now on.
        while !is_headless() {
            thread::yield_now();
        }
        emit(&Event::Listening);
        serve(&listener, late, buffers, &steps);
    });
    // SAFETY: ends this thread alone, which holds nothing that another one waits for.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// The main thread is a zombie: the process has no namespaces to be seen.
fn is_headless() -> bool {
    std::fs::metadata("/proc/self/ns/net").is_err()
}

fn serve(listener: &Socket, late: bool, buffers: Option<Buffers>, steps: &Arc<[Step]>) {
    if late {
        gate::wait(1);
    }
    loop {
        let (socket, from) = match listener.accept() {
            Ok(accepted) => accepted,
            // The client was faster to leave than we to accept.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => continue,
            Err(error) => panic!("accept: {error}"),
        };
        let from = from.as_socket().expect("an internet address");
        emit(&Event::Accepted(from));
        let steps = steps.clone();
        let serve = move || {
            if let Some(Buffers::Late(bytes)) = buffers {
                set_buffers(&socket, bytes).expect("SO_SNDBUF and SO_RCVBUF");
            }
            socket.set_read_timeout(Some(patience())).expect("SO_RCVTIMEO");
            let endpoint = Endpoint { socket, ring: None, pauses: 0 };
            let connection = play::run(endpoint, &steps);
            emit(&Event::Connection(Connection { accepted: Some(from), ..connection }));
        };
        thread::Builder::new().stack_size(STACK).spawn(serve).expect("a thread");
    }
}

fn listener(listen: SocketAddr, options: &ListenerOptions) -> std::io::Result<Socket> {
    let protocol = if options.mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(protocol))?;
    if listen.is_ipv6() {
        socket.set_only_v6(!options.dual_stack)?;
    }
    if options.small_buffer {
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
    }
    if let Some(Buffers::Early(bytes)) = options.buffers {
        set_buffers(&socket, bytes)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    socket.listen(4096)?;
    Ok(socket)
}
