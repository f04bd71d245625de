//! Both directions of a flow in one future: no task, no thread and no allocation for each direction or record.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{Moved, RelayError, is_hung_up, outcome};
use crate::sys::readiness::{self, Failure};
use crate::sys::tcp::Tcp;

/// One TLS record's worth of plaintext (RFC 8446, 5.1), so that a full buffer becomes a full record.
const BUFFER: usize = 16 * 1024;

pub struct Duplex<'s, W> {
    app: Tcp<&'s TcpStream>,
    wire: &'s mut W,
    /// What `wire` is on.
    tcp: &'s TcpStream,
    outgoing: Direction,
    incoming: Direction,
    /// Of the side that has come to its end, while the other goes on.
    failure: Option<Failure<'s>>,
    moved: &'s mut Moved,
}

impl<'s, W> Duplex<'s, W>
where
    W: AsyncRead + AsyncWrite + Unpin,
{
    pub fn new(
        app: &'s TcpStream,
        wire: &'s mut W,
        tcp: &'s TcpStream,
        moved: &'s mut Moved,
    ) -> Self {
        Self {
            app: Tcp(app),
            wire,
            tcp,
            outgoing: Direction::new(),
            incoming: Direction::new(),
            failure: None,
            moved,
        }
    }

    /// Ready when a connection fails.
    fn poll_failure(&mut self, cx: &mut Context<'_>, of: &'s TcpStream) -> Poll<io::Error> {
        self.failure.get_or_insert_with(|| readiness::failure(of)).as_mut().poll(cx)
    }
}

impl<W> Future for Duplex<'_, W>
where
    W: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Result<(), RelayError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let outgoing = this.outgoing.poll(cx, &mut this.app, this.wire, &mut this.moved.sent);
        let outgoing = this
            .outgoing
            .settle(outgoing)
            .map_err(|side| side.into_error(RelayError::App, RelayError::Wire))?;
        let incoming = this.incoming.poll(cx, this.wire, &mut this.app, &mut this.moved.received);
        let incoming = this
            .incoming
            .settle(incoming)
            .map_err(|side| side.into_error(RelayError::Wire, RelayError::App))?;
        let (mut wire, mut app) = (None, None);
        match (outgoing, incoming) {
            (Poll::Ready(()), Poll::Ready(())) => {}
            (Poll::Pending, Poll::Pending) => return Poll::Pending,
            // Nothing is read any more from the side that has ended: its failure has to be waited for.
            (Poll::Ready(()), Poll::Pending) => {
                app = Some(ready!(this.poll_failure(cx, this.app.0)))
            }
            (Poll::Pending, Poll::Ready(())) => {
                wire = Some(ready!(this.poll_failure(cx, this.tcp)))
            }
        }
        let wire = this.outgoing.refused.take().or(wire);
        Poll::Ready(outcome(wire, this.incoming.refused.take().or(app)))
    }
}

/// The end of a direction at which something failed.
enum Side {
    From(io::Error),
    To(io::Error),
}

impl Side {
    fn into_error(
        self,
        from: fn(io::Error) -> RelayError,
        to: fn(io::Error) -> RelayError,
    ) -> RelayError {
        match self {
            Self::From(error) => from(error),
            Self::To(error) => to(error),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Copying,
    /// The source has ended; what was read is written, and now the end itself is passed on.
    Closing,
    Closed,
}

struct Direction {
    buffer: Box<[u8]>,
    /// Read, not yet written: `buffer[start..end]`.
    start: usize,
    end: usize,
    unflushed: bool,
    state: State,
    /// Why the destination takes nothing any more. What it had said before is still on its way in the other
    /// direction, and ends by itself.
    refused: Option<io::Error>,
}

impl Direction {
    fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            unflushed: false,
            state: State::Copying,
            refused: None,
        }
    }

    /// A destination that has hung up ends the direction, and not yet the flow.
    fn settle(&mut self, polled: Poll<Result<(), Side>>) -> Poll<Result<(), Side>> {
        match polled {
            Poll::Ready(Err(Side::To(error))) if is_hung_up(&error) => {
                self.state = State::Closed;
                self.refused = Some(error);
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }

    /// Ready when nothing more can be moved in this direction.
    fn poll<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        moved: &mut u64,
    ) -> Poll<Result<(), Side>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        loop {
            match self.state {
                State::Copying => ready!(self.poll_copy(cx, from, to, moved))?,
                State::Closing => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Side::To)?;
                    self.state = State::Closed;
                }
                State::Closed => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes what is there, then reads more. Nothing is read while something waits to be written: that is
    /// what carries a slow reader's pace back to the writer.
    fn poll_copy<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        moved: &mut u64,
    ) -> Poll<Result<(), Side>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        while self.start < self.end {
            let pending = &self.buffer[self.start..self.end];
            let written = ready!(Pin::new(&mut *to).poll_write(cx, pending)).map_err(Side::To)?;
            if written == 0 {
                return Poll::Ready(Err(Side::To(io::ErrorKind::WriteZero.into())));
            }
            self.start += written;
            self.unflushed = true;
            *moved += written as u64;
        }
        let mut room = ReadBuf::new(&mut self.buffer);
        let read = Pin::new(&mut *from).poll_read(cx, &mut room);
        let filled = room.filled().len();
        match read {
            Poll::Ready(Ok(())) => {
                self.start = 0;
                self.end = filled;
                if filled == 0 {
                    self.state = State::Closing;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(Side::From(error))),
            Poll::Pending => {
                // Nothing more to come for now: what was written must not wait in a buffer.
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Side::To)?;
                    self.unflushed = false;
                }
                Poll::Pending
            }
        }
    }
}
