//! What a probe is told to do and what it reports: one job as a JSON argument, one JSON event per
//! line of output. A line on its standard input opens the gate of every [`Step::Pause`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::matrix::Matrix;
use crate::wait;

/// How long a probe waits for bytes, or for a connection to be established, before it gives up
/// with `EAGAIN` or `ETIMEDOUT`.
pub fn patience() -> Duration {
    wait::patient(Duration::from_secs(20))
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Job {
    /// One connection.
    Client { socket: Socket, to: SocketAddr, steps: Vec<Step> },
    /// Plays `steps` on every connection accepted, until killed.
    Server { listen: SocketAddr, socket: ListenerOptions, steps: Vec<Step> },
    /// `count` connections, all open at the same time, each echoing one message when they are.
    Crowd { to: SocketAddr, count: usize },
    /// The same with several destinations, in turn.
    Crowds { to: Vec<SocketAddr>, count: usize },
    /// `count` connections, one after the other on each of `threads`, each echoing a message that no other has.
    Churn { to: SocketAddr, count: usize, threads: usize },
    /// The same, but every second connection is reset when its message is sent, or when a part of the answer is
    /// there. Those are not counted.
    RudeChurn { to: SocketAddr, count: usize, threads: usize },
    /// One short connection after the other, each sending `text` and reading it back, until the
    /// gate opens. Reports each as a [`Event::Try`].
    Hammer { to: SocketAddr, text: String },
    /// Makes a cgroup, moves into it, and at once makes `tries` connections, each sending `text`
    /// and reading it back.
    Newborn { cgroup: PathBuf, to: SocketAddr, text: String, tries: usize },
    /// The first process of a pod of a real cluster: calls `stranger` once at once, then `server` again and again, each time with `text` in
    /// an HTTP request, until there is an answer with `text` in it. Reports an [`Event::Newcomer`]. Then it ends, or waits for
    /// SIGTERM.
    Newcomer { stranger: SocketAddr, server: SocketAddr, text: String, stays: bool },
    /// Creates a TCP socket and hands it to whoever connects to the Unix socket at `path`.
    Lender { path: PathBuf, v6: bool },
    /// Connects the TCP sockets that are passed to it over the Unix socket at `path`.
    Connector { path: PathBuf, to: SocketAddr },
    /// Every case of a matrix of sockets, openings and destinations. Reports how they ended as a [`Event::Tally`].
    Matrix(Matrix),
    /// Makes and connects sockets for those who play a matrix; see [`crate::matrix::Favour`].
    Accomplice { path: PathBuf },
    /// Sends a frame of its own on an interface (packet(7)).
    Frame { device: String, text: String },
    /// Sends a datagram and waits for the same one back.
    Datagram { to: SocketAddr, text: String },
    /// Says by gRPC that it is well, whoever asks, until killed.
    Health { listen: SocketAddr },
    /// Does nothing until killed: the first process of a workload.
    Idle,
}

/// How the client's socket comes to be. All of it is what an unprivileged process may do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Socket {
    /// An IPv6 socket connecting to `::ffff:a.b.c.d`.
    pub mapped: bool,
    pub mptcp: bool,
    pub fast_open: FastOpen,
    /// Source address and port; port 0 leaves the choice to the kernel.
    pub bind: Option<SocketAddr>,
    /// SO_BINDTODEVICE.
    pub device: Option<String>,
    /// A host on the way, in a routing header or a source route.
    pub source_route: Option<IpAddr>,
    /// connect() and send() by io_uring.
    pub io_uring: Option<IoUring>,
    pub origin: Origin,
    /// Waits for the gate between making the socket and connecting it.
    pub pause: bool,
    /// Milliseconds to wait for the connection; [`patience`] if absent.
    pub connect_limit: Option<u64>,
    /// Asked of the socket before it is connected.
    pub asked: Asked,
    /// SO_SNDBUF and SO_RCVBUF.
    pub buffers: Option<Buffers>,
    /// The process is this user's, and its group of the same number, from before connect() on.
    pub user: Option<u32>,
}

/// Options that are about packets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Asked {
    /// IP_TOS or IPV6_TCLASS.
    pub traffic_class: Option<u32>,
    /// SO_PRIORITY.
    pub priority: Option<u32>,
    /// SO_MARK, which takes CAP_NET_ADMIN or CAP_NET_RAW.
    pub mark: Option<u32>,
    /// TCP_USER_TIMEOUT, in milliseconds.
    pub user_timeout: Option<u64>,
    /// TCP_KEEPIDLE and TCP_KEEPINTVL, in seconds.
    pub keepalive: Option<u64>,
}

/// Both buffers of a socket, of so many bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Buffers {
    /// Set before connect() or listen().
    Early(usize),
    /// Set after connect() or accept().
    Late(usize),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FastOpen {
    #[default]
    No,
    /// `sendto(MSG_FASTOPEN)` instead of connect(), with the text of the first [`Step::Send`].
    Send(String),
    /// `TCP_FASTOPEN_CONNECT`: connect() returns at once, the first send() carries data in the SYN.
    Connect,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum IoUring {
    /// By system calls of the process itself.
    Entered,
    /// By a thread of the kernel's (IORING_SETUP_SQPOLL).
    Polled,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Origin {
    /// Made by the process that uses it, where it uses it.
    #[default]
    Here,
    /// Received (SCM_RIGHTS) from the [`Job::Lender`] at this path.
    Lent(PathBuf),
    /// Made before the process moved itself into the cgroup with this `cgroup.procs`.
    BeforeMovingTo(PathBuf),
    /// Made here, but connected by the [`Job::Connector`] at this path.
    ConnectedBy(PathBuf),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListenerOptions {
    /// Accept IPv4 too, as mapped addresses.
    pub dual_stack: bool,
    /// Smallest receive buffer, for servers that read slowly.
    pub small_buffer: bool,
    pub mptcp: bool,
    pub buffers: Option<Buffers>,
    /// Accept nothing before the gate opens.
    pub late: bool,
    /// Move to the cgroup with this `cgroup.procs` once the socket listens.
    pub moves_to: Option<PathBuf>,
    /// Go to a new network namespace once the socket listens.
    pub leaves: bool,
    /// End the main thread once the socket listens; another goes on.
    pub headless: bool,
}

/// One thing done to a connection. A step that fails ends the script.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    Send(String),
    /// Reads exactly this many bytes.
    Receive(usize),
    /// Reads until the end of the stream.
    ReceiveToEnd,
    /// Sends back whatever comes, until the end of the stream.
    Echo,
    /// shutdown(SHUT_WR).
    EndSending,
    /// Sends one byte of urgent data.
    Urgent(u8),
    /// Probes the peer every second (SO_KEEPALIVE) and gives it up after two without an answer; then
    /// does nothing for this many seconds.
    IdleWithKeepalive(u64),
    /// Closes with a reset (SO_LINGER 0).
    Reset,
    /// Reports [`Event::Paused`] and waits for the gate.
    Pause,
    /// Sends `bytes` made from `seed` and ends sending, while it receives to the end.
    Exchange {
        bytes: u64,
        seed: u64,
    },
    /// The same, but sends until the gate opens, and reports what it has received on the way.
    Stream {
        seed: u64,
    },
    /// Sends a few bytes and receives as many, again and again until the gate opens; reports each time.
    Converse,
    /// Sends a byte every half second until the gate opens, and receives nothing.
    Drip,
    /// Sends until the socket has taken nothing for a while or `at_most` bytes are gone.
    Fill {
        at_most: u64,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// The server accepts connections, the lender or connector waits, the idler idles.
    Listening,
    /// The server has accepted a connection, from the address accept() gave.
    Accepted(SocketAddr),
    /// A script has come to its `n`th pause.
    Paused(usize),
    /// Bytes received so far by [`Step::Stream`] or [`Step::Converse`].
    Moved(u64),
    /// A connection's script has ended.
    Connection(Connection),
    /// One try of [`Job::Hammer`] or [`Job::Newborn`].
    Try(Try),
    /// The end of [`Job::Newcomer`]'s calls.
    Newcomer(Newcomer),
    /// The end of [`Job::Crowd`] or [`Job::Churn`].
    Tally(Tally),
}

/// What one side saw of one connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Connection {
    /// The errno of connect().
    pub error: Option<i32>,
    /// How long connect() took, in milliseconds.
    pub connect_ms: u64,
    /// The address accept() gave, on the server's side.
    pub accepted: Option<SocketAddr>,
    /// getpeername() right after connect() or accept().
    pub peer: Option<SocketAddr>,
    /// getsockname() right after connect() or accept().
    pub local: Option<SocketAddr>,
    pub steps: Vec<Outcome>,
}

/// What came of one step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub error: Option<i32>,
    /// Bytes sent by sending steps, received by the others.
    pub bytes: u64,
    /// The first kilobytes received.
    pub text: String,
    /// SHA-256 of everything sent and received by [`Step::Exchange`] or [`Step::Stream`].
    pub sent_digest: String,
    pub received_digest: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Try {
    pub error: Option<i32>,
    /// Whether connect() itself failed.
    pub at_connect: bool,
    pub milliseconds: u64,
}

/// What the first process of a pod has seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Newcomer {
    /// When `main` began, in milliseconds since 1970.
    pub started_ms: u64,
    /// The stranger has answered something.
    pub stranger_answered: bool,
    /// Calls of the server that were not answered with the text.
    pub refused: u32,
    /// The errno of the first of them.
    pub first_error: Option<i32>,
    /// From the first call on until the answer, in microseconds.
    pub answered_after_us: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    pub ok: usize,
    /// The errno of each connection that failed.
    pub errors: Vec<i32>,
}

impl Connection {
    /// The outcome of the last step that ran.
    pub fn last(&self) -> Outcome {
        self.steps.last().cloned().unwrap_or_default()
    }

    /// The errno at which the script ended, at connect() or later.
    pub fn ended_by(&self) -> Option<i32> {
        self.error.or_else(|| self.last().error)
    }
}

/// The name of an errno, for messages.
pub fn errno_name(error: Option<i32>) -> String {
    error.map_or_else(|| "none".to_owned(), |raw| format!("{:?}", nix::errno::Errno::from_raw(raw)))
}
