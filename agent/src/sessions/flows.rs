//! A session between agents that carries flow after flow ([`crate::framing`]).

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Revision;
use crate::framing::{Control, GoAway, Item, Open, Reader, Refused, Reset};
use crate::relay::{self, Framing, Moved, Patience, RelayError};
use crate::tls::{Proof, Received, RecordStream};

/// How long a peer may take to answer on a session that has been idle. It may be there no more, without anybody having
/// said so; then the flow goes on with another session.
const ANSWER: Duration = Duration::from_millis(200);

/// An open session.
#[derive(Debug)]
pub struct FlowSession {
    pub stream: Box<RecordStream>,
    pub proof: Proof,
    pub terms: Terms,
    /// Of what the peer sends.
    reader: Reader,
}

/// What a session is good for.
#[derive(Debug)]
pub struct Terms {
    /// What the peer was judged by.
    pub revision: Revision,
    pub opened: Instant,
    /// When the first of the certificates that it rests on expires, those of the trust bundle among them.
    pub good_until: SystemTime,
    /// Cancelled when the workload has gone from the place it is used from.
    pub place: CancellationToken,
}

/// Which side of a session we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// Why a session takes no flow.
#[derive(Debug)]
pub enum NotAccepted {
    /// The peer does not want it.
    Refused(Refused),
    /// The peer has not taken it, and never will: another session may.
    Dead,
    /// The same, and the peer has said why.
    Over(GoAway),
    /// No answer has come in time. Others that have been idle may lead as little to anybody.
    Silent,
}

/// What the peer has said when no flow is open.
enum Said {
    Frame(Control),
    /// That the session is over.
    Closed,
    /// Nothing yet.
    Nothing,
}

impl FlowSession {
    #[must_use]
    pub fn new(stream: Box<RecordStream>, proof: Proof, side: Side, terms: Terms) -> Self {
        let reader = match side {
            Side::Client => Reader::of_server(),
            Side::Server => Reader::of_client(),
        };
        Self { stream, proof, terms, reader }
    }

    /// The same, on the runtime of the calling thread.
    pub fn settled(self) -> io::Result<Self> {
        let stream = Box::new((*self.stream).settled()?);
        Ok(Self { stream, ..self })
    }

    /// Client: begins a flow, and does not wait for an answer.
    pub fn open(&mut self, open: Open) -> Result<(), RelayError> {
        self.reader.expect_answer();
        Ok(self.stream.put_frame(Control::Open(open))?)
    }

    /// Client: begins a flow on a session that has been idle, and waits until the peer has taken it. Before that, nothing
    /// of the application's has been sent.
    pub async fn reopen(&mut self, open: Open) -> Result<(), NotAccepted> {
        self.open(open).map_err(|_| NotAccepted::Dead)?;
        match tokio::time::timeout(ANSWER, poll_fn(|cx| self.poll_control(cx))).await {
            Ok(Ok(Some(Control::Accepted))) => Ok(()),
            Ok(Ok(Some(Control::Refused(code)))) => Err(NotAccepted::Refused(code)),
            Ok(Ok(Some(Control::GoAway(code)))) => Err(NotAccepted::Over(code)),
            Ok(Ok(_)) => Err(NotAccepted::Dead),
            Ok(Err(error)) => {
                relay::break_off(&mut self.stream, true, &error);
                Err(NotAccepted::Dead)
            }
            Err(_) => Err(NotAccepted::Silent),
        }
    }

    /// Server: the next flow that the client begins; `None` if it has none any more.
    pub async fn next_flow(&mut self) -> Result<Option<Open>, RelayError> {
        self.stream.rest_keys();
        match poll_fn(|cx| self.poll_control(cx)).await? {
            Some(Control::Open(open)) => Ok(Some(open)),
            _ => Ok(None),
        }
    }

    /// The next frame, when no flow is open; `None` at the end of the session.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Control>, RelayError>> {
        // What is not written yet is written while waiting.
        if let Poll::Ready(Err(error)) = self.stream.poll_flush(cx) {
            return Poll::Ready(Err(RelayError::Wire(error)));
        }
        loop {
            match self.receive()? {
                Said::Frame(control) => return Poll::Ready(Ok(Some(control))),
                Said::Closed => return Poll::Ready(Ok(None)),
                Said::Nothing => {
                    if ready!(self.stream.poll_fill(cx)).map_err(RelayError::Wire)? == 0 {
                        let cut = || RelayError::Wire(io::ErrorKind::UnexpectedEof.into());
                        let is_clean = self.reader.is_between_flows();
                        return Poll::Ready(if is_clean { Ok(None) } else { Err(cut()) });
                    }
                }
            }
        }
    }

    /// Opens the next thing that has come, when no flow is open.
    fn receive(&mut self) -> Result<Said, RelayError> {
        loop {
            let place = match self.stream.receive()? {
                Received::Closed => return Ok(Said::Closed),
                Received::Nothing => return Ok(Said::Nothing),
                Received::Data(place) => place,
            };
            let (used, item) = self.reader.next(&self.stream.buffer()[place])?;
            self.stream.consume(used);
            if let Item::Control(control) = item {
                return Ok(Said::Frame(control));
            }
        }
    }

    /// Server: the flow is ours from here on.
    pub fn accept(&mut self) -> Result<(), RelayError> {
        self.stream.put_frame(Control::Accepted)?;
        // At once, if that is possible; otherwise it goes with what comes next.
        match self.stream.poll_flush(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(Err(error)) => Err(RelayError::Wire(error)),
            _ => Ok(()),
        }
    }

    /// Server: there will be no flow.
    pub fn refuse(mut self, code: Refused) {
        self.stream.close(Some(Control::Refused(code)));
    }

    /// Moves the bytes of a flow that has begun.
    pub async fn run(
        &mut self,
        app: &TcpStream,
        patience: Patience,
        moved: &mut Moved,
    ) -> Result<(), RelayError> {
        let framing = Framing::Flows(&mut self.reader);
        relay::run_sealed(app, &mut self.stream, framing, patience, moved).await
    }

    /// Ends a session because of an error, and tells the peer if it is its own.
    pub fn fail(mut self, error: &RelayError) {
        relay::break_off(&mut self.stream, true, error);
    }

    /// Breaks off a flow.
    pub fn reset(mut self, code: Reset) {
        self.stream.close(Some(Control::Reset(code)));
    }

    /// True unless the peer has said or ended anything since the last flow. What was read along with the end of that
    /// would pass for the answer to the next OPEN.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        if self.stream.has_unread() || !self.reader.is_between_flows() {
            return false;
        }
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(self.stream.tcp()).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Ends a session between flows in order, unless the peer has said what it may not say there: then it is told so.
    /// Returns why the peer has ended it, if it was the peer.
    pub fn close(mut self) -> Option<GoAway> {
        match self.last_words() {
            Ok(reason) => {
                self.stream.close(None);
                reason
            }
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    /// Looks at what the peer has said since the last flow.
    fn last_words(&mut self) -> Result<Option<GoAway>, RelayError> {
        loop {
            match self.receive()? {
                Said::Frame(Control::GoAway(reason)) => return Ok(Some(reason)),
                Said::Frame(_) | Said::Closed => return Ok(None),
                Said::Nothing => {}
            }
            // Whether the connection is there no more does not matter now.
            if matches!(self.stream.fill_now(), Ok(0) | Err(_)) {
                return Ok(None);
            }
        }
    }

    /// Server: ends a session between flows, and says why.
    pub fn go_away(mut self, code: GoAway) {
        self.stream.close(Some(Control::GoAway(code)));
    }
}
