//! A relay that runs: both directions, and the failure of a leg that is no longer read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use super::outgoing::State;
use super::timers::Due;
use super::{Relay, RelayError};
use crate::flow::Transferred;
use crate::sys::readiness::{self, Failure};
use crate::wire::{Collected, Ended, Filled, Wire, WireError};

/// Bytes that one direction of a flow may move before other flows get their turn.
const TURN: usize = 256 * 1024;

/// A relay and the legs that it is between. Nothing of the flow's is here: it can be dropped between two polls.
pub struct Running<'r> {
    relay: &'r mut Relay,
    app: &'r TcpStream,
    wire: &'r mut dyn Wire,
    /// Of the leg that has come to its end, while the other goes on.
    failure: Option<Failure<'r>>,
}

impl<'r> Running<'r> {
    pub fn new(relay: &'r mut Relay, app: &'r TcpStream, wire: &'r mut dyn Wire) -> Self {
        Self { relay, app, wire, failure: None }
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        let (mut sending, mut receiving) = (TURN, TURN);
        let mut outgoing = self.poll_outgoing(cx, &mut sending)?;
        let incoming = self.poll_incoming(cx, &mut receiving)?;
        if outgoing.is_pending()
            && incoming.is_ready()
            && let Poll::Ready(error) = self.poll_wire_failure(cx, &mut receiving)
        {
            return Poll::Ready(Err(error.into()));
        }
        // The peer may have asked for our next keys just now.
        if outgoing.is_pending() && self.wire.owes_write() {
            outgoing = self.poll_outgoing(cx, &mut sending)?;
        }
        if sending == 0 || receiving == 0 {
            // There is more to move, after the other flows.
            cx.waker().wake_by_ref();
        }
        let app = match (outgoing, incoming) {
            (Poll::Ready(()), Poll::Ready(())) => self.relay.incoming.refused.take(),
            (Poll::Pending, Poll::Pending) => return Poll::Pending,
            (Poll::Pending, Poll::Ready(())) => {
                self.relay.watch.half_close();
                return Poll::Pending;
            }
            (Poll::Ready(()), Poll::Pending) => {
                self.relay.watch.half_close();
                Some(ready!(self.poll_app_failure(cx)))
            }
        };
        // If the wire or the application has stopped taking bytes, that is the failure; the wire comes first.
        Poll::Ready(match (self.relay.outgoing.refused.take(), app) {
            (Some(error), _) => Err(WireError::Io(error).into()),
            (None, Some(error)) => Err(RelayError::App(error)),
            (None, None) => Ok(()),
        })
    }

    fn poll_outgoing(
        &mut self,
        cx: &mut Context<'_>,
        turn: &mut usize,
    ) -> Poll<Result<(), RelayError>> {
        let Relay { outgoing, prompt, transferred, .. } = &mut *self.relay;
        outgoing.poll(cx, (self.app, &mut *self.wire), prompt, (&mut transferred.sent, turn))
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
        turn: &mut usize,
    ) -> Poll<Result<(), RelayError>> {
        let Relay { outgoing, incoming, transferred, .. } = &mut *self.relay;
        let is_last = outgoing.state == State::Ended;
        incoming.poll(cx, (self.app, &mut *self.wire), is_last, (&mut transferred.received, turn))
    }

    /// Ready when the application fails after it has ended its direction.
    fn poll_app_failure(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let app = self.app;
        self.failure.get_or_insert_with(|| readiness::failure(app)).as_mut().poll(cx)
    }

    /// Ready when the wire fails from which nothing more is to come: by whatever the peer says behind its end, or by
    /// its connection.
    fn poll_wire_failure(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> Poll<WireError> {
        while self.failure.is_none() {
            // Data is for an application that is gone, or stands behind the end, where nobody looks at it.
            loop {
                match self.wire.collect() {
                    Ok(Collected::More) if self.wire.collected().is_empty() => break,
                    Ok(_) => self.wire.discard(),
                    Err(error) => return Poll::Ready(error),
                }
            }
            if *turn == 0 {
                return Poll::Pending;
            }
            match ready!(self.wire.poll_fill(cx)) {
                Ok(Filled::End) => {
                    // The peer has ended its direction of TCP as well; now nothing can be read that would tell more.
                    self.wire.rest(Ended::Receiving);
                    self.failure = Some(readiness::failure(Arc::clone(self.wire.tcp())));
                }
                Ok(Filled::Bytes(read)) => *turn = turn.saturating_sub(read),
                Err(error) => return Poll::Ready(error),
            }
        }
        match &mut self.failure {
            Some(failure) => failure.as_mut().poll(cx).map(WireError::Io),
            None => Poll::Pending,
        }
    }

    /// What has moved, and how much waits for the peer. A slow reader takes much less than that at once.
    fn progress(&self) -> (Transferred, usize) {
        (self.relay.transferred, self.wire.unsent())
    }
}

impl Future for Running<'_> {
    type Output = Result<(), RelayError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let before = this.progress();
        if let Poll::Ready(result) = this.poll_both(cx) {
            return Poll::Ready(result);
        }
        if this.progress() != before {
            this.relay.watch.touch();
        }
        loop {
            let watch = &mut this.relay.watch;
            match ready!(watch.poll(cx)) {
                Due::Rest => {
                    this.wire.rest_keys();
                    watch.rest(this.wire.tcp());
                }
                Due::Look { limit, owing } => watch.look(this.wire.tcp(), limit, owing)?,
                Due::End(limit) => return Poll::Ready(Err(RelayError::Idle(limit))),
            }
        }
    }
}
