//! Both directions of a flow in one future: no task, no thread and no allocation for each direction or record. Buffers are
//! leased only while bytes move.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::prompt::Prompt;
use super::timers::{Due, Patience, Watch};
use super::{Moved, RelayError, is_hung_up, outcome};
use crate::buffers::{Account, Lease, Size};
use crate::record::LONGEST_CONTENT;
use crate::sys::readiness::{self, Failure};
use crate::sys::tcp::Tcp;

pub struct Duplex<'s, W> {
    app: Tcp<&'s TcpStream>,
    wire: &'s mut W,
    /// What `wire` is on.
    tcp: &'s TcpStream,
    outgoing: Direction<'s>,
    incoming: Direction<'s>,
    /// Of the side that has come to its end, while the other goes on.
    failure: Option<Failure<'s>>,
    prompt: Prompt,
    watch: Watch,
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
        buffers: &'s Arc<Account>,
        patience: Patience,
        moved: &'s mut Moved,
    ) -> Self {
        Self {
            app: Tcp(app),
            wire,
            tcp,
            outgoing: Direction::new(buffers),
            incoming: Direction::new(buffers),
            failure: None,
            prompt: Prompt::default(),
            watch: Watch::new(patience),
            moved,
        }
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        let outgoing = self.outgoing.poll(cx, &mut self.app, self.wire, &mut self.moved.sent);
        let outgoing = self
            .outgoing
            .settle(outgoing)
            .map_err(|side| side.into_error(RelayError::App, RelayError::Wire))?;
        if outgoing.is_pending() && self.outgoing.is_empty() {
            self.prompt.emptied(self.app.0, self.moved.sent);
        }
        let incoming = self.incoming.poll(cx, self.wire, &mut self.app, &mut self.moved.received);
        let incoming = self
            .incoming
            .settle(incoming)
            .map_err(|side| side.into_error(RelayError::Wire, RelayError::App))?;
        let (mut wire, mut app) = (None, None);
        match (outgoing, incoming) {
            (Poll::Ready(()), Poll::Ready(())) => {}
            (Poll::Pending, Poll::Pending) => return Poll::Pending,
            // Nothing is read any more from the side that has ended: its failure has to be waited for.
            (Poll::Ready(()), Poll::Pending) => {
                self.watch.half_close();
                app = Some(ready!(self.poll_failure(cx, self.app.0)))
            }
            (Poll::Pending, Poll::Ready(())) => {
                self.watch.half_close();
                wire = Some(ready!(self.poll_failure(cx, self.tcp)))
            }
        }
        let wire = self.outgoing.refused.take().or(wire);
        Poll::Ready(outcome(wire, self.incoming.refused.take().or(app)))
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
        let before = *this.moved;
        if let Poll::Ready(result) = this.poll_both(cx) {
            return Poll::Ready(result);
        }
        if *this.moved != before {
            this.watch.touch();
        }
        loop {
            match ready!(this.watch.poll(cx)) {
                // There is nothing more to let go of.
                Due::Rest => this.watch.rest(this.tcp),
                Due::Look { limit, owing } => this.watch.look(this.tcp, limit, owing)?,
                Due::End(limit) => return Poll::Ready(Err(RelayError::Idle(limit))),
            }
        }
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

struct Direction<'s> {
    buffers: &'s Arc<Account>,
    lease: Option<Lease>,
    /// Read, not yet written: `lease[start..end]`.
    start: usize,
    end: usize,
    unflushed: bool,
    state: State,
    /// Why the destination takes nothing any more. What it had said before is still on its way in the other
    /// direction, and ends by itself.
    refused: Option<io::Error>,
}

impl<'s> Direction<'s> {
    fn new(buffers: &'s Arc<Account>) -> Self {
        Self {
            buffers,
            lease: None,
            start: 0,
            end: 0,
            unflushed: false,
            state: State::Copying,
            refused: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// A destination that has hung up ends the direction, and not yet the flow.
    fn settle(&mut self, polled: Poll<Result<(), Side>>) -> Poll<Result<(), Side>> {
        match polled {
            Poll::Ready(Err(Side::To(error))) if is_hung_up(&error) => {
                self.state = State::Closed;
                self.lease = None;
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
        let lease = self.lease.get_or_insert_with(|| self.buffers.lease(Size::One));
        while self.start < self.end {
            let pending = &lease[self.start..self.end];
            let written = ready!(Pin::new(&mut *to).poll_write(cx, pending)).map_err(Side::To)?;
            if written == 0 {
                return Poll::Ready(Err(Side::To(io::ErrorKind::WriteZero.into())));
            }
            self.start += written;
            self.unflushed = true;
            *moved += written as u64;
        }
        // No more than fits into one record, so that a full read becomes a full record.
        let mut room = ReadBuf::new(&mut lease[..LONGEST_CONTENT]);
        let read = Pin::new(&mut *from).poll_read(cx, &mut room);
        let filled = room.filled().len();
        match read {
            Poll::Ready(Ok(())) => {
                self.start = 0;
                self.end = filled;
                if filled == 0 {
                    self.lease = None;
                    self.state = State::Closing;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(Side::From(error))),
            Poll::Pending => {
                self.lease = None;
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
