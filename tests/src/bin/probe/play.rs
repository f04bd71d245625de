//! Playing a script on one connection.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sheath_tests::script::{Connection, Event, Outcome, Step};
use socket2::{Socket, TcpKeepalive};

use crate::client::{end_sending, errno};
use crate::uring::Ring;
use crate::{emit, gate};

/// How much of what was received is reported as text.
const REPORTED: usize = 4096;

const BLOCK: usize = 256 * 1024;

/// Between the blocks of a transfer that is meant to last, and between the words of a conversation.
const PACE: Duration = Duration::from_millis(20);

/// Between two bytes of [`Step::Drip`].
const DRIP: Duration = Duration::from_millis(500);

/// Received bytes between two reports of a transfer.
const REPORT_EVERY: u64 = 1024 * 1024;

/// After this long without room in the send buffer, the other side is taken not to read.
const BLOCKED: Duration = Duration::from_secs(1);

/// A connected socket, and the ring it sends by if it does not by system calls.
pub struct Endpoint {
    pub socket: Socket,
    pub ring: Option<Ring>,
    /// Pauses the script has made so far.
    pub pauses: usize,
}

/// Plays all steps, or up to the first that fails.
pub fn run(mut endpoint: Endpoint, steps: &[Step]) -> Connection {
    let address = |address: io::Result<socket2::SockAddr>| address.ok()?.as_socket();
    let mut connection = Connection {
        peer: address(endpoint.socket.peer_addr()),
        local: address(endpoint.socket.local_addr()),
        ..Connection::default()
    };
    for step in steps {
        let mut outcome = Outcome::default();
        if let Err(error) = endpoint.play(step, &mut outcome) {
            outcome.error = Some(errno(&error));
        }
        let failed = outcome.error.is_some();
        connection.steps.push(outcome);
        if failed {
            break;
        }
    }
    connection
}

/// Reports the nth pause of a connection and waits for the gate.
pub fn pause(n: usize) {
    emit(&Event::Paused(n));
    gate::wait(n);
}

impl Endpoint {
    fn play(&mut self, step: &Step, outcome: &mut Outcome) -> io::Result<()> {
        match step {
            Step::Send(text) => self.send(text.as_bytes(), outcome),
            Step::Receive(length) => self.receive(Some(*length), outcome),
            Step::ReceiveToEnd => self.receive(None, outcome),
            Step::Echo => self.echo(outcome),
            Step::EndSending => end_sending(&self.socket),
            Step::Urgent(byte) => self.socket.send_out_of_band(&[*byte]).map(|_| ()),
            Step::IdleWithKeepalive(seconds) => {
                let every_second = Duration::from_secs(1);
                let keepalive = TcpKeepalive::new()
                    .with_time(every_second)
                    .with_interval(every_second)
                    .with_retries(2);
                self.socket.set_tcp_keepalive(&keepalive)?;
                std::thread::sleep(Duration::from_secs(*seconds));
                Ok(())
            }
            Step::Reset => {
                self.socket.set_linger(Some(Duration::ZERO))?;
                // Closed here, not at the end of the script: the socket is replaced by another.
                self.socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                Ok(())
            }
            Step::Pause => {
                self.pauses += 1;
                pause(self.pauses);
                Ok(())
            }
            Step::Exchange { bytes, seed } => {
                self.exchange(&Amount::Bytes(*bytes), *seed, outcome, |_| {})
            }
            Step::Stream { seed } => {
                let mut reported = 0;
                self.exchange(&Amount::UntilTheGateOpens, *seed, outcome, |received| {
                    if received - reported >= REPORT_EVERY {
                        reported = received;
                        emit(&Event::Moved(received));
                    }
                })
            }
            Step::Converse => self.converse(outcome),
            Step::Drip => self.drip(outcome),
            Step::Fill { at_most } => self.fill(*at_most, outcome),
        }
    }

    fn send(&mut self, mut bytes: &[u8], outcome: &mut Outcome) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = match &mut self.ring {
                Some(ring) => ring.send(&self.socket, bytes)?,
                None => self.socket.send(bytes)?,
            };
            outcome.bytes += sent as u64;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Receives `length` bytes, or everything.
    fn receive(&mut self, length: Option<usize>, outcome: &mut Outcome) -> io::Result<()> {
        let mut text = Vec::new();
        let mut buffer = vec![0; BLOCK];
        let result = loop {
            let wanted = length.map_or(BLOCK, |length| length - outcome.bytes as usize).min(BLOCK);
            if wanted == 0 {
                break Ok(());
            }
            match (&self.socket).read(&mut buffer[..wanted]) {
                Ok(0) if length.is_none() => break Ok(()),
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    outcome.bytes += count as u64;
                    let room = REPORTED.saturating_sub(text.len()).min(count);
                    text.extend_from_slice(&buffer[..room]);
                }
                Err(error) => break Err(error),
            }
        };
        outcome.text = String::from_utf8_lossy(&text).into_owned();
        result
    }

    fn echo(&mut self, outcome: &mut Outcome) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = (&self.socket).read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            (&self.socket).write_all(&buffer[..count])?;
            outcome.bytes += count as u64;
        }
    }

    fn converse(&self, outcome: &mut Outcome) -> io::Result<()> {
        const WORDS: &[u8] = b"anybody there?";
        while !gate::is_open() {
            (&self.socket).write_all(WORDS)?;
            let mut answer = [0; WORDS.len()];
            (&self.socket).read_exact(&mut answer)?;
            if answer != WORDS {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            outcome.bytes += WORDS.len() as u64;
            emit(&Event::Moved(outcome.bytes));
            thread::sleep(PACE);
        }
        Ok(())
    }

    fn drip(&self, outcome: &mut Outcome) -> io::Result<()> {
        while !gate::is_open() {
            (&self.socket).write_all(b".")?;
            outcome.bytes += 1;
            thread::sleep(DRIP);
        }
        Ok(())
    }

    fn exchange(
        &self,
        amount: &Amount,
        seed: u64,
        outcome: &mut Outcome,
        received_so_far: impl FnMut(u64),
    ) -> io::Result<()> {
        let (sent, received) = thread::scope(|scope| {
            let sender = scope.spawn(|| send_made(&self.socket, amount, seed));
            let received = receive_digest(&self.socket, received_so_far);
            (sender.join().expect("the sending thread"), received)
        });
        outcome.sent_digest = sent?;
        (outcome.bytes, outcome.received_digest) = received?;
        Ok(())
    }

    fn fill(&self, at_most: u64, outcome: &mut Outcome) -> io::Result<()> {
        let block = vec![b'f'; BLOCK];
        self.socket.set_nonblocking(true)?;
        while outcome.bytes < at_most {
            match self.socket.send(&block) {
                Ok(sent) => outcome.bytes += sent as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                    let timeout = PollTimeout::try_from(BLOCKED).expect("a poll timeout");
                    if poll(&mut fds, timeout)? == 0 {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.socket.set_nonblocking(false)
    }
}

/// How much to send.
enum Amount {
    Bytes(u64),
    /// One block after the other, without haste.
    UntilTheGateOpens,
}

impl Amount {
    /// The length of the next block, 0 at the end.
    fn next(&self, sent: u64) -> usize {
        match self {
            Self::Bytes(bytes) => (bytes - sent).min(BLOCK as u64) as usize,
            Self::UntilTheGateOpens if gate::is_open() => 0,
            Self::UntilTheGateOpens => {
                thread::sleep(PACE);
                BLOCK
            }
        }
    }
}

/// Sends bytes made from `seed`, ends sending, and returns their digest. No two blocks are the same, so a
/// block lost, doubled or misplaced shows.
fn send_made(mut socket: &Socket, amount: &Amount, seed: u64) -> io::Result<String> {
    let mut state = seed | 1;
    let mut block: Vec<u8> = (0..BLOCK)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect();
    let mut digest = Context::new(&SHA256);
    let (mut number, mut sent) = (0u64, 0);
    loop {
        let count = amount.next(sent);
        if count == 0 {
            break;
        }
        block[..8].copy_from_slice(&number.to_be_bytes());
        number += 1;
        digest.update(&block[..count]);
        socket.write_all(&block[..count])?;
        sent += count as u64;
    }
    end_sending(socket)?;
    Ok(hex(digest))
}

fn receive_digest(mut socket: &Socket, mut so_far: impl FnMut(u64)) -> io::Result<(u64, String)> {
    let mut buffer = vec![0; BLOCK];
    let mut digest = Context::new(&SHA256);
    let mut bytes = 0;
    loop {
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, hex(digest)));
        }
        digest.update(&buffer[..count]);
        bytes += count as u64;
        so_far(bytes);
    }
}

fn hex(digest: Context) -> String {
    digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
