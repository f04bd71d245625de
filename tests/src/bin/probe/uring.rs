//! connect() and send() through io_uring, where no system call of that name ever happens.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};
use sheath_tests::script::IoUring as Kind;
use socket2::{SockAddr, Socket};

const ENTRIES: u32 = 4;
const POLLER_IDLE_MS: u32 = 100;

pub struct Ring(IoUring);

impl Ring {
    pub fn new(kind: Kind) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        if matches!(kind, Kind::Polled) {
            builder.setup_sqpoll(POLLER_IDLE_MS);
        }
        builder.build(ENTRIES).map(Self)
    }

    pub fn connect(&mut self, socket: &Socket, to: &SockAddr) -> io::Result<()> {
        let connect =
            opcode::Connect::new(types::Fd(socket.as_raw_fd()), to.as_ptr().cast(), to.len());
        self.complete(connect.build()).map(|_| ())
    }

    pub fn send(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        let length = u32::try_from(bytes.len()).expect("a short message");
        let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), length);
        self.complete(send.build())
    }

    fn complete(&mut self, entry: squeue::Entry) -> io::Result<usize> {
        // SAFETY: both callers hold the memory the entry points to until this returns, and this
        // returns only when the kernel is done with it.
        unsafe { self.0.submission().push(&entry) }.expect("room for one entry");
        self.0.submit_and_wait(1)?;
        let result = self.0.completion().next().expect("the one completion").result();
        usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
    }
}
