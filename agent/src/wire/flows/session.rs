//! A session that carries flow after flow.

use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::{Control, GoAwayCode, Item, Reader, RefusalCode, ResetCode, SavedReader, data_header};
use crate::flow::Role;
use crate::wire::buffers::Account;
use crate::wire::mode::Mode;
use crate::wire::record::{Alert, ContentType};
use crate::wire::records::{Received, RecordStream, SavedRecords};
use crate::wire::saved::{Encoded, NotRestored, NotSaved, SavedWire};
use crate::wire::{
    Abort, Collected, Ended, Endpoints, Filled, NotAccepted, SendError, Session, Slices, Wire,
    WireError,
};

/// The kind of session that agents prefer.
pub static MODE: Mode = Mode {
    name: "sheath/1",
    alpn: Some(b"sheath/1"),
    start: Some(|records, role| Box::new(Flows::new(records, role))),
    restore: Some(Flows::restore),
};

/// Version of what [`Flows::save`] makes.
const VERSION: u16 = 1;

/// A session that carries flow after flow.
#[derive(Debug)]
pub struct Flows {
    records: RecordStream,
    role: Role,
    /// Of what the peer sends.
    reader: Reader,
    /// Bytes of the application have been read for the open flow. They cannot be read again, so no other session can carry it.
    has_read: bool,
}

/// The state of a [`Flows`].
#[derive(Serialize, Deserialize)]
struct SavedFlows {
    role: Role,
    records: SavedRecords,
    reader: SavedReader,
    has_read: bool,
}

/// What has come from the peer while no flow is open.
enum Message {
    Frame(Control),
    /// The end of the session.
    Closed,
    /// Nothing yet.
    Nothing,
}

impl Flows {
    #[must_use]
    pub fn new(records: RecordStream, role: Role) -> Self {
        let reader = match role {
            Role::Client => Reader::of_server(),
            Role::Server => Reader::of_client(),
        };
        Self { records, role, reader, has_read: false }
    }

    fn restore(
        state: &Encoded,
        tcp: StdTcpStream,
        account: Arc<Account>,
    ) -> Result<Box<dyn Session>, NotRestored> {
        let saved: SavedFlows = state.decode(VERSION)?;
        let peer_is_client = saved.role == Role::Server;
        Ok(Box::new(Self {
            records: RecordStream::restore(&saved.records, peer_is_client, tcp, account)?,
            role: saved.role,
            reader: Reader::restore(&saved.reader, peer_is_client)?,
            has_read: saved.has_read,
        }))
    }

    fn put(&mut self, frame: Control) -> Result<(), WireError> {
        self.records.put(ContentType::ApplicationData, frame.encode().as_ref())
    }

    /// Ends the session with a last frame.
    fn close_with(&mut self, last: Control) {
        if self.put(last).is_ok() {
            self.records.close();
        }
    }

    /// The next frame, when no flow is open; `None` at the end of the session.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Control>, WireError>> {
        // What is not written yet is written while waiting.
        if let Poll::Ready(Err(error)) = self.records.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            match self.next_message()? {
                Message::Frame(control) => return Poll::Ready(Ok(Some(control))),
                Message::Closed => return Poll::Ready(Ok(None)),
                Message::Nothing => {
                    if ready!(self.records.poll_fill(cx))? == 0 {
                        let is_clean = self.reader.is_between_flows();
                        let end = if is_clean { Ok(None) } else { Err(WireError::cut()) };
                        return Poll::Ready(end);
                    }
                }
            }
        }
    }

    /// Takes the next frame of what has come, when no flow is open.
    fn next_message(&mut self) -> Result<Message, WireError> {
        loop {
            let place = match self.records.receive()? {
                Received::Closed => return Ok(Message::Closed),
                Received::Nothing => return Ok(Message::Nothing),
                Received::Data(place) => place,
            };
            let (used, item) = self.reader.next(&self.records.buffer()[place])?;
            self.records.consume(used);
            if let Item::Control(control) = item {
                return Ok(Message::Frame(control));
            }
        }
    }

    /// Takes the GO_AWAY that the peer has sent since the last flow, if there is one.
    fn pending_go_away(&mut self) -> Result<Option<GoAwayCode>, WireError> {
        loop {
            match self.next_message()? {
                Message::Frame(Control::GoAway(reason)) => return Ok(Some(reason)),
                Message::Frame(_) | Message::Closed => return Ok(None),
                Message::Nothing => {}
            }
            // A connection that is gone does not matter now.
            if matches!(self.records.fill_now(), Ok(0) | Err(_)) {
                return Ok(None);
            }
        }
    }
}

impl Wire for Flows {
    fn tcp(&self) -> &Arc<TcpStream> {
        self.records.tcp()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        self.records.poll_flush(cx)
    }

    fn owes_write(&self) -> bool {
        self.records.must_rekey()
    }

    fn unsent(&self) -> usize {
        self.records.unsent()
    }

    fn poll_send_from(
        &mut self,
        cx: &mut Context<'_>,
        app: &TcpStream,
    ) -> Poll<Result<usize, SendError>> {
        let read = ready!(self.records.poll_seal_from(cx, app, data_header))?;
        self.has_read |= read > 0;
        Poll::Ready(Ok(read))
    }

    fn end_sending(&mut self) -> Result<(), WireError> {
        self.put(Control::Fin)
    }

    fn has_sent_end(&mut self) {
        self.reader.sent_fin();
    }

    fn collect(&mut self) -> Result<Collected, WireError> {
        while !self.records.is_full_for_app() {
            let place = match self.records.receive()? {
                Received::Nothing => break,
                // Amid a flow.
                Received::Closed => return Err(WireError::cut()),
                Received::Data(place) => place,
            };
            let (used, item) = self.reader.next(&self.records.buffer()[place.clone()])?;
            self.records.consume(used);
            match item {
                Item::Data(data) => {
                    self.records.keep_for_app(place.start + data.start..place.start + data.end);
                }
                Item::Control(Control::Fin) => return Ok(Collected::End),
                Item::Control(Control::Reset(code)) => return Err(WireError::Reset(code)),
                Item::Control(Control::Refused(code)) => return Err(WireError::Refused(code)),
                Item::Control(Control::GoAway(code)) if self.has_read => {
                    return Err(WireError::GoneAway(code));
                }
                Item::Control(Control::GoAway(code)) => return Err(WireError::NotTaken(code)),
                Item::Control(Control::Accepted | Control::Open(_)) | Item::More => {}
            }
        }
        Ok(Collected::More)
    }

    fn collected(&self) -> Slices<'_> {
        self.records.for_app()
    }

    fn taken(&mut self, bytes: usize) {
        self.records.taken_by_app(bytes);
    }

    fn discard(&mut self) {
        self.records.discard_for_app();
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Filled, WireError>> {
        match ready!(self.records.poll_fill(cx))? {
            0 => Poll::Ready(Err(WireError::cut())),
            read => Poll::Ready(Ok(Filled::Bytes(read))),
        }
    }

    fn rest(&mut self, direction: Ended) {
        match direction {
            Ended::Sending => self.records.rest_sending(),
            Ended::Receiving => self.records.rest_receiving(),
        }
    }

    fn rest_keys(&mut self) {
        self.records.rest_keys();
    }

    fn abort(&mut self, why: Abort<'_>) {
        match why {
            Abort::Application => self.close_with(Control::Reset(ResetCode::APPLICATION)),
            Abort::Timeout => self.close_with(Control::Reset(ResetCode::TIMEOUT)),
            Abort::Revoked => self.close_with(Control::Reset(ResetCode::REVOKED)),
            Abort::Wire(WireError::Record(error)) => self.records.alert(error),
            Abort::Wire(WireError::Frame(_)) => {
                self.records.send_alert(Alert::UNEXPECTED_MESSAGE);
            }
            Abort::Wire(_) => {}
        }
    }
}

impl Session for Flows {
    fn mode(&self) -> &'static Mode {
        &MODE
    }

    fn begin(&mut self, flow: Endpoints) -> Result<(), WireError> {
        self.has_read = false;
        self.reader.expect_answer();
        self.put(Control::Open(flow))
    }

    fn poll_accepted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotAccepted>> {
        Poll::Ready(match ready!(self.poll_control(cx)) {
            Ok(Some(Control::Accepted)) => Ok(()),
            Ok(Some(Control::Refused(code))) => Err(NotAccepted::Refused(code)),
            Ok(Some(Control::GoAway(code))) => Err(NotAccepted::Over(code)),
            Ok(_) => Err(NotAccepted::Dead),
            Err(error) => {
                self.abort(Abort::Wire(&error));
                Err(NotAccepted::Dead)
            }
        })
    }

    fn carries_many(&self) -> bool {
        true
    }

    fn poll_next_flow(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Endpoints>, WireError>> {
        Poll::Ready(match ready!(self.poll_control(cx))? {
            Some(Control::Open(flow)) => {
                self.has_read = false;
                Ok(Some(flow))
            }
            _ => Ok(None),
        })
    }

    fn accept(&mut self) -> Result<(), WireError> {
        self.put(Control::Accepted)?;
        // At once, if that is possible; otherwise it goes with what comes next.
        match self.records.poll_flush(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn refuse(mut self: Box<Self>, code: RefusalCode) {
        self.close_with(Control::Refused(code));
    }

    fn finish(self: Box<Self>) -> io::Result<Option<Box<dyn Session>>> {
        Ok(Some(self))
    }

    /// What was read along with the end of the last flow would pass for the answer to the next OPEN.
    fn is_quiet(&self) -> bool {
        if self.records.has_unread() || !self.reader.is_between_flows() {
            return false;
        }
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(self.records.tcp()).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// If the peer has said what it may not say between flows, then it is told so.
    fn close(mut self: Box<Self>, reason: Option<GoAwayCode>) -> Option<GoAwayCode> {
        if let Some(reason) = reason {
            self.close_with(Control::GoAway(reason));
            return None;
        }
        match self.pending_go_away() {
            Ok(reason) => {
                self.records.close();
                reason
            }
            Err(error) => {
                self.abort(Abort::Wire(&error));
                None
            }
        }
    }

    fn is_here(&self) -> bool {
        self.records.is_here()
    }

    fn moved_here(self: Box<Self>) -> io::Result<Box<dyn Session>> {
        let records = self.records.moved_here()?;
        Ok(Box::new(Self { records, ..*self }))
    }

    fn save(&self) -> Result<SavedWire, NotSaved> {
        let saved = SavedFlows {
            role: self.role,
            records: self.records.save(),
            reader: self.reader.save(),
            has_read: self.has_read,
        };
        Ok(SavedWire { mode: MODE.name.to_owned(), state: Encoded::new(VERSION, &saved)? })
    }

    #[cfg(test)]
    fn into_records(self: Box<Self>) -> RecordStream {
        self.records
    }
}
