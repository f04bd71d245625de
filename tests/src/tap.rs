//! The wire tap: every frame that crosses an interface, from a packet socket on it.
//!
//! The kernel queues a frame to the socket before it hands it to the device, so once an
//! application has received something, the frames that carried it are in the queue; every
//! question drains the queue first, and so never misses what has already happened.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::dissect::packet::Segment;
use crate::dissect::recording::{Recorded, Recording};
use crate::dissect::stream::Stream;
use crate::netns::NetNs;

/// Larger than any frame: segmentation offload hands over up to 64 KiB at once.
const LARGEST_FRAME: usize = 256 * 1024;

/// Room for what arrives while a test thread holds the processor.
const QUEUE_BYTES: libc::c_int = 256 * 1024 * 1024;

/// A running tap.
pub struct Tap {
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Recorder {
    socket: OwnedFd,
    frames: Mutex<Vec<Arc<[u8]>>>,
}

impl Tap {
    /// Starts recording on `interface` of `netns`.
    pub fn new(netns: &NetNs, interface: &str) -> Self {
        let index = netns.interface(interface);
        let socket = netns.run(|| packet_socket(index)).expect("a packet socket (needs root)");
        let recorder = Arc::new(Recorder { socket, frames: Mutex::default() });
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (recorder, stop) = (recorder.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut fds = [PollFd::new(recorder.socket.as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut fds, PollTimeout::from(50u8));
                    recorder.drain();
                }
            }
        });
        Self { recorder, stop, thread: Some(thread) }
    }

    /// Every frame so far, as it was on the wire.
    ///
    /// # Panics
    /// When the kernel dropped frames of this tap: then no answer of it is worth anything.
    pub fn frames(&self) -> Vec<Arc<[u8]>> {
        self.recorder.drain();
        let dropped = self.recorder.dropped().expect("the tap's statistics");
        assert_eq!(dropped, 0, "the tap itself lost frames");
        self.recorder.frames.lock().unwrap().clone()
    }

    /// The TCP segments among the frames.
    pub fn segments(&self) -> Vec<Segment> {
        self.recording().segments()
    }

    /// Each direction of each TCP connection, put together.
    pub fn streams(&self) -> Vec<Stream> {
        self.recording().streams()
    }

    /// The streams towards `port`.
    pub fn streams_to(&self, port: u16) -> Vec<Stream> {
        self.recording().streams_to(port)
    }

    /// TLS handshakes that clients have begun on `port`.
    pub fn handshakes(&self, port: u16) -> usize {
        self.recording().handshakes(port)
    }

    /// How often `text` was seen; see [`Recording::sightings`].
    pub fn sightings(&self, text: &str) -> usize {
        self.recording().sightings(text)
    }

    /// Bytes of TCP payload, retransmissions included.
    pub fn payload_bytes(&self) -> usize {
        self.segments().iter().map(|segment| segment.payload().len()).sum()
    }

    /// Source addresses of the connection attempts towards `port`, in the order of their SYNs.
    pub fn attempts(&self, port: u16) -> Vec<SocketAddr> {
        self.recording().attempts(|destination| destination.port() == port)
    }

    /// The same, towards one address and port.
    pub fn attempts_at(&self, destination: SocketAddr) -> Vec<SocketAddr> {
        self.recording().attempts(|it| it == destination)
    }
}

impl Recorded for Tap {
    fn recording(&self) -> Recording {
        Recording::new(self.frames())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Recorder {
    fn drain(&self) {
        let mut frames = self.frames.lock().unwrap();
        let mut buffer = vec![0u8; LARGEST_FRAME];
        loop {
            let flags = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
            match nix::sys::socket::recv(self.socket.as_raw_fd(), &mut buffer, flags) {
                Ok(length) => frames.push(Arc::from(&buffer[..length])),
                Err(nix::errno::Errno::EAGAIN) => return,
                // The interface goes down when its namespace does; what was seen stays seen.
                Err(_) => return,
            }
        }
    }

    /// Frames the kernel could not queue since the last call.
    fn dropped(&self) -> io::Result<u32> {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of_val(&stats) as libc::socklen_t;
        // SAFETY: `stats` and `length` are valid for the call, which writes no more than `length`.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stats.tp_drops)
    }
}

/// A packet socket that sees all frames of one interface, both ways.
fn packet_socket(interface: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointer is involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::RcvBufForce,
        &(QUEUE_BYTES as usize),
    )?;
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface as i32;
    // SAFETY: `address` is a `sockaddr_ll` of the given length and outlives the call.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}
