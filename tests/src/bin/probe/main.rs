//! An application for the scenarios: plays the job given as its argument and prints one JSON
//! event per line. See `sheath_tests::script`.

mod client;
mod gate;
mod health;
mod lend;
mod load;
mod matrix;
mod newcomer;
mod play;
mod server;
mod uring;

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::SystemTime;
use std::{env, io};

use sheath_tests::script::{Connection, Event, Job, Outcome, patience};

fn main() {
    let started = SystemTime::now();
    let argument = env::args().nth(1).expect("a job in JSON");
    let job: Job = serde_json::from_str(&argument).expect("a job in JSON");
    if let Job::Newcomer { stranger, server, text, stays } = &job {
        // No harness has its standard input.
        newcomer::run(started, *stranger, *server, text);
        if *stays {
            newcomer::wait_for_the_end();
        }
        return;
    }
    gate::watch_stdin();
    match job {
        Job::Client { socket, to, steps } => {
            emit(&Event::Connection(client::run(&socket, to, &steps)))
        }
        Job::Server { listen, socket, steps } => server::run(listen, &socket, &steps),
        Job::Crowd { to, count } => emit(&Event::Tally(load::crowd(&[to], count))),
        Job::Crowds { to, count } => emit(&Event::Tally(load::crowd(&to, count))),
        Job::Churn { to, count, threads } => emit(&Event::Tally(load::churn(to, count, threads))),
        Job::RudeChurn { to, count, threads } => {
            emit(&Event::Tally(load::rude_churn(to, count, threads)));
        }
        Job::Hammer { to, text } => load::hammer(to, &text),
        Job::Newborn { cgroup, to, text, tries } => load::newborn(&cgroup, to, &text, tries),
        // It has ended above.
        Job::Newcomer { .. } => {}
        Job::Lender { path, v6 } => lend::lend(&path, v6),
        Job::Connector { path, to } => lend::connect_for_others(&path, to),
        Job::Matrix(job) => matrix::run(&job),
        Job::Accomplice { path } => matrix::help(&path),
        Job::Frame { device, text } => emit(&Event::Connection(frame(&device, &text))),
        Job::Datagram { to, text } => emit(&Event::Connection(datagram(to, &text))),
        Job::Health { listen } => health::serve(listen),
        Job::Idle => {
            emit(&Event::Listening);
            gate::wait(usize::MAX);
        }
    }
}

/// Prints an event; the harness reads line by line.
fn emit(event: &Event) {
    let mut line = serde_json::to_string(event).expect("an event");
    line.push('\n');
    // The harness is gone: so is the reason to go on.
    if io::stdout().lock().write_all(line.as_bytes()).is_err() {
        std::process::exit(1);
    }
}

/// The only way round every program on a socket: a packet that has none of TCP's.
fn frame(device: &str, text: &str) -> Connection {
    let send = || -> io::Result<usize> {
        let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None)?;
        // SAFETY: all-zero bytes are a valid `sockaddr_ll`.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = nix::net::if_::if_nametoindex(device)? as i32;
        let mut bytes = vec![0xff; 12];
        // An EtherType for experiments (IEEE 802).
        bytes.extend([0x88, 0xb5]);
        bytes.extend(text.as_bytes());
        // SAFETY: buffer and address are live for the call, and their lengths are passed with them.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    };
    Connection {
        error: send().err().and_then(|error| error.raw_os_error()),
        ..Connection::default()
    }
}

fn datagram(to: SocketAddr, text: &str) -> Connection {
    let exchange = || -> io::Result<String> {
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(patience()))?;
        socket.send_to(text.as_bytes(), to)?;
        let mut buffer = [0; 4096];
        let (length, _) = socket.recv_from(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let outcome = match exchange() {
        Ok(text) => Outcome { bytes: text.len() as u64, text, ..Outcome::default() },
        Err(error) => Outcome { error: error.raw_os_error(), ..Outcome::default() },
    };
    Connection { steps: vec![outcome], ..Connection::default() }
}
