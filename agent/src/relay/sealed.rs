//! Between an application and a session whose records are ours: both directions in one future, in as few and as large
//! steps as there can be. Bytes are read into the records they leave in, and written from the records they came in.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::net::TcpStream;

use super::prompt::Prompt;
use super::timers::{Due, Patience, Watch};
use super::{Framing, Moved, RelayError, is_hung_up, outcome};
use crate::framing::{Control, Item, Reset, data_header};
use crate::record::{Alert, CLOSE_NOTIFY, ContentType};
use crate::sys::readiness::{self, Failure};
use crate::tls::{Prefix, Received, RecordStream, SealFromError};

/// Bytes that one direction of a flow may move before others get their turn.
const TURN: usize = 256 * 1024;
/// Pieces that are written at once: as many as the largest buffer holds full records, and some for small ones.
const PIECES: usize = 32;

pub struct Sealed<'s> {
    app: &'s TcpStream,
    wire: &'s mut RecordStream,
    /// What `wire` is on.
    tcp: &'s TcpStream,
    framing: Framing<'s>,
    pub(super) moved: &'s mut Moved,
    outgoing: Outgoing,
    incoming: Incoming,
    /// Of the side that has come to its end, while the other goes on.
    failure: Option<Failure<'s>>,
    prompt: Prompt,
    watch: Watch,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Copying,
    /// The source has ended; what was read is written, and now the end itself is passed on.
    Ending,
    Ended,
}

#[derive(Debug, Default)]
struct Outgoing {
    state: State,
    /// The end has left, too.
    is_sent: bool,
    /// Bytes of the application's in what waits to be written.
    waiting: usize,
    /// Why the destination takes nothing any more. What it had said before is still on its way in the other
    /// direction, and ends by itself.
    refused: Option<io::Error>,
}

#[derive(Debug, Default)]
struct Incoming {
    state: State,
    /// The peer has ended its direction.
    has_end: bool,
    pieces: Pieces,
    /// As in [`Outgoing`].
    refused: Option<io::Error>,
}

/// What has come from the peer.
enum Came {
    /// Bytes for the application, at this place of the wire's buffer.
    Data(Range<usize>),
    /// The end of its direction.
    End,
    /// Nothing yet.
    Nothing,
}

/// Places of the wire's buffer that wait to be written to the application, in order.
#[derive(Debug, Default)]
struct Pieces {
    places: [(u32, u32); PIECES],
    waiting: Range<usize>,
}

impl Pieces {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn is_full(&self) -> bool {
        self.waiting.end == PIECES
    }

    /// A buffer is far smaller than 4 GiB.
    fn push(&mut self, place: Range<usize>) {
        self.places[self.waiting.end] = (place.start as u32, place.end as u32);
        self.waiting.end += 1;
    }

    fn slices<'b>(&self, buffer: &'b [u8]) -> ([IoSlice<'b>; PIECES], usize) {
        let mut places = self.places[self.waiting.clone()].iter();
        let slices = std::array::from_fn(|_| {
            let (start, end) = places.next().copied().unwrap_or_default();
            IoSlice::new(&buffer[start as usize..end as usize])
        });
        (slices, self.waiting.len())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some((start, end)) = self.places[self.waiting.clone()].first_mut() {
            let length = (*end - *start) as usize;
            if written < length {
                *start += written as u32;
                return;
            }
            written -= length;
            self.waiting.start += 1;
        }
        self.waiting = 0..0;
    }
}

impl<'s> Sealed<'s> {
    pub fn new(
        app: &'s TcpStream,
        wire: &'s mut RecordStream,
        tcp: &'s TcpStream,
        framing: Framing<'s>,
        patience: Patience,
        moved: &'s mut Moved,
    ) -> Self {
        Self {
            app,
            wire,
            tcp,
            framing,
            moved,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            failure: None,
            prompt: Prompt::default(),
            watch: Watch::new(patience),
        }
    }

    /// Ready when nothing more goes to the wire.
    fn poll_outgoing(
        &mut self,
        cx: &mut Context<'_>,
        turn: &mut usize,
    ) -> Poll<Result<(), RelayError>> {
        let prefix = match self.framing {
            Framing::Bytes => None,
            Framing::Flows(_) => Some(data_header as Prefix),
        };
        loop {
            if self.outgoing.refused.is_some() {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.wire.poll_flush(cx)) {
                Ok(()) => self.moved.sent += std::mem::take(&mut self.outgoing.waiting) as u64,
                Err(error) if is_hung_up(&error) => {
                    self.outgoing.refused = Some(error);
                    continue;
                }
                Err(error) => return Poll::Ready(Err(RelayError::Wire(error))),
            }
            match self.outgoing.state {
                State::Ended => {
                    let is_known = std::mem::replace(&mut self.outgoing.is_sent, true);
                    if let (false, Framing::Flows(reader)) = (is_known, &mut self.framing) {
                        reader.sent_fin();
                    }
                    self.wire.rest_sending();
                    return Poll::Ready(Ok(()));
                }
                _ if self.wire.must_rekey() => self.wire.rekey()?,
                State::Copying => {
                    if *turn == 0 {
                        return Poll::Pending;
                    }
                    let Poll::Ready(sealed) = self.wire.poll_seal_from(cx, self.app, prefix) else {
                        self.prompt.emptied(self.app, self.moved.sent);
                        return Poll::Pending;
                    };
                    match sealed {
                        Ok(0) => self.outgoing.state = State::Ending,
                        Ok(read) => {
                            self.outgoing.waiting = read;
                            *turn = turn.saturating_sub(read);
                        }
                        Err(SealFromError::Source(error)) => {
                            return Poll::Ready(Err(RelayError::App(error)));
                        }
                        Err(SealFromError::Stream(error)) => return Poll::Ready(Err(error.into())),
                    }
                }
                State::Ending => {
                    self.outgoing.state = State::Ended;
                    match self.framing {
                        Framing::Bytes => self.wire.put(ContentType::Alert, &CLOSE_NOTIFY)?,
                        Framing::Flows(_) => self.wire.put_frame(Control::Fin)?,
                    }
                }
            }
        }
    }

    /// Ready when nothing more comes from the wire.
    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
        turn: &mut usize,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            match ready!(self.poll_deliver(cx, turn)) {
                Ok(()) => {}
                Err(error) if is_hung_up(&error) => self.app_hung_up(error),
                Err(error) => return Poll::Ready(Err(RelayError::App(error))),
            }
            match self.incoming.state {
                State::Ended => {
                    self.wire.rest_receiving();
                    return Poll::Ready(Ok(()));
                }
                State::Ending => {
                    self.incoming.state = State::Ended;
                    // If nothing is left in the other direction either, closing the leg says the same.
                    let is_last = self.outgoing.state == State::Ended && !self.wire.has_waiting();
                    if !is_last
                        && let Err(error) = SockRef::from(self.app).shutdown(Shutdown::Write)
                    {
                        self.app_hung_up(error);
                    }
                    continue;
                }
                State::Copying => {
                    if let Err(error) = self.collect() {
                        // What came before was good, but nobody waits for it to be taken.
                        let _ = self.poll_deliver(cx, turn);
                        return Poll::Ready(Err(error));
                    }
                }
            }
            if self.incoming.pieces.is_empty() && self.incoming.state == State::Copying {
                if *turn == 0 {
                    return Poll::Pending;
                }
                if ready!(self.wire.poll_fill(cx)).map_err(RelayError::Wire)? == 0 {
                    let cut = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Err(RelayError::Wire(cut)));
                }
            }
        }
    }

    /// Ready when the application has taken all that was collected for it.
    fn poll_deliver(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> Poll<io::Result<()>> {
        while !self.incoming.pieces.is_empty() {
            let (slices, count) = self.incoming.pieces.slices(self.wire.buffer());
            let written = ready!(readiness::poll_write(self.app, cx, &slices[..count]))?;
            self.incoming.pieces.advance(written);
            self.moved.received += written as u64;
            *turn = turn.saturating_sub(written);
        }
        Poll::Ready(Ok(()))
    }

    /// The application takes nothing any more.
    fn app_hung_up(&mut self, error: io::Error) {
        self.incoming.pieces = Pieces::default();
        self.incoming.state = State::Ended;
        self.incoming.refused = Some(error);
    }

    /// Opens what has come, up to as many pieces as are written at once, or to the end.
    fn collect(&mut self) -> Result<(), RelayError> {
        while !self.incoming.pieces.is_full() {
            match self.receive()? {
                Came::Data(place) => self.incoming.pieces.push(place),
                Came::End => {
                    self.incoming.state = State::Ending;
                    break;
                }
                Came::Nothing => break,
            }
        }
        Ok(())
    }

    /// Opens the next thing that has come.
    fn receive(&mut self) -> Result<Came, RelayError> {
        loop {
            let place = match self.wire.receive()? {
                Received::Nothing => return Ok(Came::Nothing),
                Received::Closed => {
                    if let Framing::Flows(_) = self.framing {
                        // Amid a flow.
                        return Err(RelayError::Wire(io::ErrorKind::UnexpectedEof.into()));
                    }
                    self.incoming.has_end = true;
                    return Ok(Came::End);
                }
                Received::Data(place) => place,
            };
            let Framing::Flows(reader) = &mut self.framing else {
                self.wire.consume(place.len());
                return Ok(Came::Data(place));
            };
            let (used, item) = reader.next(&self.wire.buffer()[place.clone()])?;
            self.wire.consume(used);
            match item {
                Item::Data(data) => {
                    return Ok(Came::Data(place.start + data.start..place.start + data.end));
                }
                Item::Control(Control::Fin) => {
                    self.incoming.has_end = true;
                    return Ok(Came::End);
                }
                Item::Control(Control::Reset(code)) => return Err(RelayError::Reset(code)),
                Item::Control(Control::Refused(code)) => return Err(RelayError::Refused(code)),
                Item::Control(Control::GoAway(code)) if self.has_taken() => {
                    return Err(RelayError::GoneAway(code));
                }
                Item::Control(Control::GoAway(code)) => return Err(RelayError::NotTaken(code)),
                Item::Control(Control::Accepted | Control::Open(_)) | Item::More => {}
            }
        }
    }

    /// True if anything was read from the application: it cannot be read again.
    fn has_taken(&self) -> bool {
        self.moved.sent > 0 || self.outgoing.waiting > 0
    }

    /// Ready when the application fails, which has ended its direction and still listens.
    fn poll_app_failure(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let app = self.app;
        self.failure.get_or_insert_with(|| readiness::failure(app)).as_mut().poll(cx)
    }

    /// Ready when the wire fails from which nothing more is to come: by whatever the peer says behind its end, or by
    /// its connection.
    fn poll_wire_failure(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> Poll<RelayError> {
        while self.failure.is_none() {
            loop {
                match self.receive() {
                    // Of frames it is data for an application that is gone. Behind close_notify it is to be ignored
                    // (RFC 8446, 6.1).
                    Ok(Came::Data(_) | Came::End) => {}
                    Ok(Came::Nothing) => break,
                    Err(error) => return Poll::Ready(error),
                }
            }
            if *turn == 0 {
                return Poll::Pending;
            }
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) if matches!(self.framing, Framing::Bytes) && self.incoming.has_end => {
                    // The peer has ended its direction of TCP as well; now nothing can be read that would tell more.
                    self.wire.rest_receiving();
                    self.failure = Some(readiness::failure(self.tcp));
                }
                Ok(0) => {
                    return Poll::Ready(RelayError::Wire(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(read) => *turn = turn.saturating_sub(read),
                Err(error) => return Poll::Ready(RelayError::Wire(error)),
            }
        }
        match &mut self.failure {
            Some(failure) => failure.as_mut().poll(cx).map(RelayError::Wire),
            None => Poll::Pending,
        }
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        let (mut sending, mut receiving) = (TURN, TURN);
        let mut outgoing = self.poll_outgoing(cx, &mut sending)?;
        let incoming = self.poll_incoming(cx, &mut receiving)?;
        if outgoing.is_pending()
            && incoming.is_ready()
            && let Poll::Ready(error) = self.poll_wire_failure(cx, &mut receiving)
        {
            return Poll::Ready(Err(error));
        }
        // The peer may have asked for our next keys just now.
        if outgoing.is_pending() && self.wire.must_rekey() {
            outgoing = self.poll_outgoing(cx, &mut sending)?;
        }
        if sending == 0 || receiving == 0 {
            // There is more to do, after the others.
            cx.waker().wake_by_ref();
        }
        let app = match (outgoing, incoming) {
            (Poll::Ready(()), Poll::Ready(())) => self.incoming.refused.take(),
            (Poll::Pending, Poll::Pending) => return Poll::Pending,
            (Poll::Pending, Poll::Ready(())) => {
                self.watch.half_close();
                return Poll::Pending;
            }
            (Poll::Ready(()), Poll::Pending) => {
                self.watch.half_close();
                Some(ready!(self.poll_app_failure(cx)))
            }
        };
        Poll::Ready(outcome(self.outgoing.refused.take(), app))
    }
}

impl Future for Sealed<'_> {
    type Output = Result<(), RelayError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // What waits is much more than a peer may take at once that reads slowly.
        let before = (*this.moved, this.wire.waiting());
        if let Poll::Ready(result) = this.poll_both(cx) {
            return Poll::Ready(result);
        }
        if (*this.moved, this.wire.waiting()) != before {
            this.watch.touch();
        }
        loop {
            match ready!(this.watch.poll(cx)) {
                Due::Rest => {
                    this.wire.rest_keys();
                    this.watch.rest(this.tcp);
                }
                Due::Look { limit, owing } => this.watch.look(this.tcp, limit, owing)?,
                Due::End(limit) => return Poll::Ready(Err(RelayError::Idle(limit))),
            }
        }
    }
}

/// Tells the peer why a flow is over, as far as that can be done at once. If it was told as a whole, the connection may
/// end in order; otherwise it is reset.
pub fn break_off(wire: &mut RecordStream, is_framed: bool, error: &RelayError) {
    match error {
        RelayError::Record(error) => {
            if let Some(alert) = error.alert() {
                wire.say_goodbye(alert);
            }
        }
        RelayError::Frame(_) => wire.say_goodbye(Alert::UNEXPECTED_MESSAGE),
        RelayError::App(_) if is_framed => wire.close(Some(Control::Reset(Reset::APPLICATION))),
        RelayError::Idle(_) if is_framed => wire.close(Some(Control::Reset(Reset::TIMEOUT))),
        _ => {}
    }
}
