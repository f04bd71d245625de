//! The records of a session on its TCP connection.
//!
//! The outbox has sealed records that wait to be written. The inbox has what was read and
//! waits to be opened, or to be taken by the application. Each leases at most one buffer; in an idle session neither does.

mod inbox;
mod outbox;
mod save;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::net::TcpStream;
use tokio::runtime::{self, Handle};

use super::buffers::Account;
use super::pieces::Slices;
use super::record::{
    Alert, ContentType, KEY_UPDATE, Opened, Opener, RecordError, Sealer, TrafficSecret,
};
use super::{SendError, WireError};
use crate::sys::sockopt;

use inbox::Inbox;
use outbox::Outbox;
pub use save::SavedRecords;

/// A TLS 1.3 session after its handshake.
#[derive(Debug)]
pub struct RecordStream {
    /// Shared only with a future that waits for its failure.
    tcp: Arc<TcpStream>,
    /// The runtime that waits for its events.
    runtime: runtime::Id,
    keys: RecordKeys,
    /// The peer has asked for our next keys.
    owes_key_update: bool,
    /// Nothing may be sent behind the alert that ends our direction (RFC 8446, 6.1).
    has_said_goodbye: bool,
    /// Buffers are leased from it.
    account: Arc<Account>,
    /// Sealed records that wait to be written.
    outbox: Outbox,
    /// What has been read.
    inbox: Inbox,
}

/// What protects the records of both directions, and where the next keys come from.
#[derive(Debug)]
pub struct RecordKeys {
    pub sealer: Sealer,
    pub opener: Opener,
    pub sending: TrafficSecret,
    pub receiving: TrafficSecret,
}

/// What has been received from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Bytes, at this place of [`RecordStream::buffer`].
    Data(Range<usize>),
    /// The peer has sent its last record.
    Closed,
    /// Less than one record: more has to be read first.
    Nothing,
}

/// Bytes that a handshake leaves over; fewer than the smallest buffer holds.
#[derive(Debug, Default)]
pub struct Leftover {
    /// Read from the peer, and not processed.
    pub unread: Vec<u8>,
    /// The end of the handshake, which may travel with what comes next.
    pub unsent: Vec<u8>,
}

impl RecordStream {
    /// # Errors
    /// If the handshake has left more than the smallest buffer holds.
    pub fn new(
        tcp: TcpStream,
        keys: RecordKeys,
        account: Arc<Account>,
        leftover: &Leftover,
    ) -> io::Result<Self> {
        let too_long = || io::Error::other("the end of a handshake that is too long");
        let inbox = Inbox::holding(&account, &[], &leftover.unread).ok_or_else(too_long)?;
        let outbox = Outbox::holding(&account, &leftover.unsent).ok_or_else(too_long)?;
        Ok(Self {
            tcp: Arc::new(tcp),
            runtime: Handle::current().id(),
            keys,
            owes_key_update: false,
            has_said_goodbye: false,
            account,
            outbox,
            inbox,
        })
    }

    /// The same session, waited on by the runtime of the calling thread.
    ///
    /// # Errors
    /// If somebody waits for its events at this moment, or if the runtime cannot.
    pub fn moved_here(self) -> io::Result<Self> {
        if self.is_here() {
            return Ok(self);
        }
        let in_use = || io::Error::other("a connection that is waited on");
        let tcp = Arc::into_inner(self.tcp).ok_or_else(in_use)?;
        let tcp = Arc::new(TcpStream::from_std(tcp.into_std()?)?);
        Ok(Self { tcp, runtime: Handle::current().id(), ..self })
    }

    /// True if the runtime of the calling thread waits for its events.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.runtime == Handle::current().id()
    }

    #[must_use]
    pub fn tcp(&self) -> &Arc<TcpStream> {
        &self.tcp
    }

    /// How many bytes there are to write.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// Writes what waits to be written, and the answer to a KeyUpdate behind it.
    ///
    /// # Errors
    /// If the connection has failed, or if there are no next keys.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        loop {
            ready!(self.outbox.poll_write(&self.tcp, cx))?;
            if !self.must_rekey() {
                return Poll::Ready(Ok(()));
            }
            self.rekey()?;
        }
    }

    /// Puts a record with a copy of `content` behind what waits to be written; application data behind a KeyUpdate, if
    /// there must be one (RFC 8446, 4.6.3).
    ///
    /// # Errors
    /// If it is longer than a control message.
    pub fn put(&mut self, kind: ContentType, content: &[u8]) -> Result<(), WireError> {
        if kind == ContentType::ApplicationData && self.must_rekey() {
            self.rekey()?;
        }
        let room = self.outbox.room(&self.account);
        let length = self.keys.sealer.seal_copy(kind, content, room)?;
        self.outbox.grow(length);
        self.has_said_goodbye |= kind == ContentType::Alert;
        Ok(())
    }

    /// True if a KeyUpdate must come before the next data.
    #[must_use]
    pub fn must_rekey(&self) -> bool {
        (self.owes_key_update || self.keys.sealer.wants_rekey()) && !self.has_said_goodbye
    }

    /// Changes over to our next keys.
    fn rekey(&mut self) -> Result<(), WireError> {
        self.put(ContentType::Handshake, &KEY_UPDATE)?;
        self.keys.sealer.rekey(self.keys.sending.update()?);
        self.owes_key_update = false;
        Ok(())
    }

    /// Reads from `source` once, straight into records, and seals them. Each begins with what `prefix` makes of the length
    /// of its data. Nothing must be waiting to be written. Returns how many bytes came; none when the source has ended.
    ///
    /// # Errors
    /// Of the source or of the session.
    pub fn poll_seal_from<const PREFIX: usize>(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        prefix: impl Fn(usize) -> [u8; PREFIX],
    ) -> Poll<Result<usize, SendError>> {
        debug_assert_eq!(self.unsent(), 0);
        loop {
            match source.poll_read_ready(cx) {
                Poll::Ready(ready) => ready.map_err(SendError::App)?,
                Poll::Pending => {
                    self.outbox.give_back();
                    return Poll::Pending;
                }
            }
            let read = self.outbox.read_from::<PREFIX>(source, &self.account);
            if let Some(read) = read.map_err(SendError::App)? {
                let sealed = self.outbox.seal(read, &mut self.keys.sealer, &prefix);
                sealed.map_err(WireError::from)?;
                return Poll::Ready(Ok(read));
            }
        }
    }

    /// What [`Received::Data`] is part of.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.inbox.buffer()
    }

    /// The rest of the record that was opened last, or the next record. What is returned stays where it is until
    /// [`Self::poll_fill`].
    ///
    /// # Errors
    /// What ends the session; final.
    pub fn receive(&mut self) -> Result<Received, WireError> {
        loop {
            if let Some(open) = self.inbox.opened() {
                return Ok(Received::Data(open));
            }
            match self.inbox.open(&mut self.keys.opener)? {
                None => return Ok(Received::Nothing),
                Some(Opened::Data(_) | Opened::Nothing) => {}
                Some(Opened::KeyUpdate { is_requested }) => {
                    self.keys.opener.rekey(self.keys.receiving.update()?);
                    self.owes_key_update |= is_requested;
                }
                Some(Opened::Closed) => return Ok(Received::Closed),
            }
        }
    }

    /// True if something has been read and not consumed.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.inbox.has_unread()
    }

    /// Takes note that this many bytes of what was received have been dealt with.
    pub fn consume(&mut self, bytes: usize) {
        self.inbox.consume(bytes);
    }

    /// Keeps received bytes for the application.
    pub fn keep_for_app(&mut self, place: Range<usize>) {
        self.inbox.pieces.push(place);
    }

    /// True if no more can wait for the application.
    #[must_use]
    pub fn is_full_for_app(&self) -> bool {
        self.inbox.pieces.is_full()
    }

    /// What waits for the application.
    #[must_use]
    pub fn for_app(&self) -> Slices<'_> {
        self.inbox.pieces.slices(self.inbox.buffer())
    }

    /// The application has taken so many bytes.
    pub fn taken_by_app(&mut self, bytes: usize) {
        self.inbox.pieces.advance(bytes);
    }

    /// Drops what waits for the application, which reads no more.
    pub fn discard_for_app(&mut self) {
        self.inbox.pieces.clear();
    }

    /// Reads once. To be called when everything that was received has been consumed, and taken. Returns how many bytes
    /// came; none when the TCP connection has ended, be the session closed or cut.
    ///
    /// # Errors
    /// If the connection has failed.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            match self.tcp.poll_read_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.inbox.rest(&self.account);
                    return Poll::Pending;
                }
            }
            if let Some(read) = self.inbox.read_from(&self.tcp, &self.account)? {
                return Poll::Ready(Ok(read));
            }
        }
    }

    /// Reads once what has come, whether the runtime knows of it already or not. As [`Self::poll_fill`] otherwise.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing.
    pub fn fill_now(&mut self) -> io::Result<usize> {
        self.inbox.read_now(&self.tcp, &self.account)
    }

    /// Takes less memory while nothing moves: the next record takes a little longer.
    pub fn rest_keys(&mut self) {
        self.keys.sealer.rest();
        self.keys.opener.rest();
    }

    /// Gives back the buffer for sending, if nothing waits in it.
    pub fn rest_sending(&mut self) {
        if self.outbox.len() == 0 {
            self.outbox.give_back();
        }
    }

    /// Gives back the buffer for receiving, if it holds nothing.
    pub fn rest_receiving(&mut self) {
        self.inbox.rest(&self.account);
    }

    /// Tells the peer what is wrong with its records, if that can be done at once (RFC 8446, 6.2).
    pub fn alert(&mut self, error: &RecordError) {
        if let Some(alert) = error.alert() {
            self.send_alert(alert);
        }
    }

    /// Tells the peer that this direction is over, if that can be done at once.
    pub fn send_alert(&mut self, alert: Alert) {
        let _ = self.put(ContentType::Alert, &alert.content());
        let _ = self.poll_flush(&mut Context::from_waker(Waker::noop()));
    }

    /// Ends the session. If all of it can be said at once, the connection may end in order as well; otherwise it is reset.
    pub fn close(&mut self) {
        self.send_alert(Alert::CLOSE_NOTIFY);
        if self.outbox.len() == 0 {
            let _ = sockopt::close_gracefully(&self.tcp);
        }
    }

    /// Changes its keys before its next data, and from then on after so many records.
    #[cfg(test)]
    pub(super) fn with_limited_keys(self, records: u64) -> Self {
        let RecordKeys { sealer, opener, sending, receiving } = self.keys;
        let keys = RecordKeys { sealer, opener, sending: sending.with_limit(records), receiving };
        Self { keys, owes_key_update: true, ..self }
    }
}
