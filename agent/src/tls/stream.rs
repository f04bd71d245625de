//! A session's records on its TCP connection.
//!
//! Two boxes, each over at most one leased buffer: what is sealed and waits to be written, and what was read and
//! waits to be opened. An idle session has neither.

use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::net::TcpStream;
use tokio::runtime::{self, Handle};

use crate::buffers::{Account, Lease, Size};
use crate::framing::{self, Control};
use crate::record::{
    Alert, ContentType, HEADER, KEY_UPDATE, LONGEST_CONTENT, OVERHEAD, Opened, Opener, RecordError,
    SealError, Sealer, TRAILER, TrafficSecret, UnsupportedKeys,
};
use crate::sys::{readiness, sockopt};

/// One full record of our own.
const SLOT: usize = LONGEST_CONTENT + OVERHEAD;
const PREFIX: usize = framing::HEADER;

/// A TLS 1.3 session after its handshake.
#[derive(Debug)]
pub struct RecordStream {
    /// Shared with nobody but whoever waits for its failure.
    tcp: Arc<TcpStream>,
    runtime: runtime::Id,
    sealer: Sealer,
    opener: Opener,
    secrets: Secrets,
    /// The peer has asked for our next keys.
    owes_key_update: bool,
    account: Arc<Account>,
    outbox: Outbox,
    inbox: Inbox,
}

/// Where the keys of both directions come from.
#[derive(Debug)]
pub(super) struct Secrets {
    pub sending: TrafficSecret,
    pub receiving: TrafficSecret,
}

/// Sealed records: `lease[waiting]`.
#[derive(Debug, Default)]
struct Outbox {
    lease: Option<Lease>,
    waiting: Range<usize>,
    size: Size,
}

/// Records from the peer. What is open comes before what is not: `lease[open]`, then `lease[sealed]`.
#[derive(Debug, Default)]
struct Inbox {
    lease: Option<Lease>,
    open: Range<usize>,
    sealed: Range<usize>,
    size: Size,
}

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Keys(#[from] UnsupportedKeys),
}

/// Why nothing more can be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealFromError {
    /// What was to be sealed could not be read.
    #[error(transparent)]
    Source(io::Error),
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// What has come from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Bytes, at this place of [`RecordStream::buffer`].
    Data(Range<usize>),
    /// The peer has sent its last record.
    Closed,
    /// Not even one record as a whole: more has to be read first.
    Nothing,
}

/// A header before the data of each record, made from their length.
pub type Prefix = fn(usize) -> [u8; PREFIX];

/// What a handshake leaves besides keys; less than the smallest buffer holds.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// Read from the peer, but not looked at.
    pub unread: Vec<u8>,
    /// The end of the handshake, which may travel with what comes next.
    pub unsent: Vec<u8>,
}

impl RecordStream {
    pub(super) fn new(
        tcp: TcpStream,
        sealer: Sealer,
        opener: Opener,
        secrets: Secrets,
        account: Arc<Account>,
        remains: &Remains,
    ) -> io::Result<Self> {
        let mut stream = Self {
            tcp: Arc::new(tcp),
            runtime: Handle::current().id(),
            sealer,
            opener,
            secrets,
            owes_key_update: false,
            account,
            outbox: Outbox::default(),
            inbox: Inbox::default(),
        };
        let too_long = || io::Error::other("the end of a handshake that is too long");
        if !remains.unread.is_empty() {
            let lease = stream.inbox.lease.insert(stream.account.lease(Size::One));
            let room = lease.get_mut(..remains.unread.len()).ok_or_else(too_long)?;
            room.copy_from_slice(&remains.unread);
            stream.inbox.sealed = 0..remains.unread.len();
        }
        if !remains.unsent.is_empty() {
            let lease = stream.outbox.lease.insert(stream.account.lease(Size::One));
            let room = lease.get_mut(..remains.unsent.len()).ok_or_else(too_long)?;
            room.copy_from_slice(&remains.unsent);
            stream.outbox.waiting = 0..remains.unsent.len();
        }
        Ok(stream)
    }

    /// The same session, waited on by the runtime of the calling thread.
    pub fn settled(self) -> io::Result<Self> {
        let here = Handle::current().id();
        if self.runtime == here {
            return Ok(self);
        }
        let in_use = || io::Error::other("a connection that is waited on");
        let tcp = Arc::into_inner(self.tcp).ok_or_else(in_use)?;
        let tcp = Arc::new(TcpStream::from_std(tcp.into_std()?)?);
        Ok(Self { tcp, runtime: here, ..self })
    }

    /// The runtime that waits for its events.
    #[must_use]
    pub fn runtime(&self) -> runtime::Id {
        self.runtime
    }

    #[must_use]
    pub fn tcp(&self) -> &Arc<TcpStream> {
        &self.tcp
    }

    /// True if there is something to write.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.waiting() > 0
    }

    /// How many bytes there are to write.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.outbox.waiting.len()
    }

    /// Writes what waits to be written.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(lease) = &self.outbox.lease else {
            return Poll::Ready(Ok(()));
        };
        while !self.outbox.waiting.is_empty() {
            let waiting = IoSlice::new(&lease[self.outbox.waiting.clone()]);
            let written = ready!(readiness::poll_write(&self.tcp, cx, &[waiting]))?;
            self.outbox.waiting.start += written;
        }
        self.outbox.waiting = 0..0;
        Poll::Ready(Ok(()))
    }

    /// Puts a record with a copy of `content` behind what waits to be written; application data behind a KeyUpdate, if
    /// there must be one (RFC 8446, 4.6.3).
    ///
    /// # Errors
    /// If it is longer than a control message.
    pub fn put(&mut self, kind: ContentType, content: &[u8]) -> Result<(), StreamError> {
        if kind == ContentType::ApplicationData && self.must_rekey() {
            self.rekey()?;
        }
        let lease = match &mut self.outbox.lease {
            Some(lease) => lease,
            none => none.insert(self.account.lease(Size::One)),
        };
        let room = &mut lease[self.outbox.waiting.end..];
        self.outbox.waiting.end += self.sealer.seal_copy(kind, content, room)?;
        Ok(())
    }

    /// Puts a frame behind what waits to be written.
    pub fn put_frame(&mut self, frame: Control) -> Result<(), StreamError> {
        self.put(ContentType::ApplicationData, frame.encode().as_ref())
    }

    /// True if a KeyUpdate must come before the next data.
    #[must_use]
    pub fn must_rekey(&self) -> bool {
        self.owes_key_update || self.sealer.wants_rekey()
    }

    /// Changes over to our next keys.
    pub fn rekey(&mut self) -> Result<(), StreamError> {
        self.put(ContentType::Handshake, &KEY_UPDATE)?;
        self.sealer.rekey(self.secrets.sending.update()?);
        self.owes_key_update = false;
        Ok(())
    }

    /// Reads from `source` once, straight into records, and seals them. Nothing must be waiting to be written, nor
    /// for new keys. Returns how many bytes came; none when the source has ended.
    pub fn poll_seal_from(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        prefix: Option<Prefix>,
    ) -> Poll<Result<usize, SealFromError>> {
        loop {
            match source.poll_read_ready(cx) {
                Poll::Ready(ready) => ready.map_err(SealFromError::Source)?,
                Poll::Pending => {
                    self.outbox.lease = None;
                    return Poll::Pending;
                }
            }
            let wanted = self.outbox.size;
            let held = self.outbox.lease.take_if(|lease| lease.size() == wanted);
            let lease = held.unwrap_or_else(|| self.account.lease(wanted));
            let lease = self.outbox.lease.insert(lease);
            let content = HEADER + prefix.map_or(0, |_| PREFIX)..HEADER + LONGEST_CONTENT;
            let room = content.len() * lease.size().records();
            let Some(read) = read_into(source, lease, &content).map_err(SealFromError::Source)?
            else {
                continue;
            };
            self.outbox.size = wanted.adapted(read, room);
            self.seal_slots(read, &content, prefix).map_err(StreamError::from)?;
            return Poll::Ready(Ok(read));
        }
    }

    /// Makes records of the slots that hold `length` bytes of content.
    fn seal_slots(
        &mut self,
        length: usize,
        content: &Range<usize>,
        prefix: Option<Prefix>,
    ) -> Result<(), SealError> {
        let slots = self.outbox.lease.iter_mut().flat_map(|lease| lease.chunks_exact_mut(SLOT));
        let mut rest = length;
        let mut sealed = 0;
        for slot in slots.take(length.div_ceil(content.len())) {
            let length = rest.min(content.len());
            rest -= length;
            if let Some(prefix) = prefix {
                slot[HEADER..content.start].copy_from_slice(&prefix(length));
            }
            let record = &mut slot[..content.start + length + TRAILER];
            self.sealer.seal(ContentType::ApplicationData, record)?;
            sealed += record.len();
        }
        self.outbox.waiting = 0..sealed;
        Ok(())
    }

    /// What [`Received::Data`] is part of.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.inbox.lease.as_deref().unwrap_or_default()
    }

    /// The rest of the record that was opened last, or the next record. What is returned stays where it is until
    /// [`Self::poll_fill`].
    pub fn receive(&mut self) -> Result<Received, StreamError> {
        loop {
            if !self.inbox.open.is_empty() {
                return Ok(Received::Data(self.inbox.open.clone()));
            }
            let Some(lease) = &mut self.inbox.lease else {
                return Ok(Received::Nothing);
            };
            let sealed = &mut lease[self.inbox.sealed.clone()];
            let Some((length, opened)) = self.opener.open(sealed)? else {
                return Ok(Received::Nothing);
            };
            let start = self.inbox.sealed.start;
            self.inbox.sealed.start += length;
            match opened {
                Opened::Data(place) => self.inbox.open = start + place.start..start + place.end,
                Opened::Nothing => {}
                Opened::KeyUpdate { is_requested } => {
                    self.opener.rekey(self.secrets.receiving.update()?);
                    self.owes_key_update |= is_requested;
                }
                Opened::Closed => return Ok(Received::Closed),
            }
        }
    }

    /// True if something has been read that nobody has dealt with.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.inbox.open.is_empty() || !self.inbox.sealed.is_empty()
    }

    /// Takes note that this many bytes of what was received have been dealt with.
    pub fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.inbox.open.len());
        self.inbox.open.start += bytes;
    }

    /// Reads once. To be called when everything that was received has been consumed. Returns how many bytes came;
    /// none when the TCP connection has ended, be the session closed or cut.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        debug_assert!(self.inbox.open.is_empty());
        loop {
            match self.tcp.poll_read_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.inbox.rest(&self.account);
                    return Poll::Pending;
                }
            }
            let room = self.inbox.room(&self.account);
            let wanted = room.len();
            if let Some(read) = readiness::try_read(&self.tcp, &mut [IoSliceMut::new(room)])? {
                self.inbox.sealed.end += read;
                self.inbox.size = self.inbox.size.adapted(read, wanted);
                return Poll::Ready(Ok(read));
            }
        }
    }

    /// Reads once what has come, whether the runtime knows of it already or not. As [`Self::poll_fill`] otherwise.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing.
    pub fn fill_now(&mut self) -> io::Result<usize> {
        debug_assert!(self.inbox.open.is_empty());
        let room = self.inbox.room(&self.account);
        let read = nix::unistd::read(&*self.tcp, room)?;
        self.inbox.sealed.end += read;
        Ok(read)
    }

    /// Takes less memory while nothing moves: the next record takes a little longer.
    pub fn rest_keys(&mut self) {
        self.sealer.rest();
        self.opener.rest();
    }

    /// Gives back the buffer for sending, if nothing waits in it.
    pub fn rest_sending(&mut self) {
        if !self.has_waiting() {
            self.outbox.lease = None;
        }
    }

    /// Gives back the buffer for receiving, if it holds nothing. Nothing that was received may be in use any more.
    pub fn rest_receiving(&mut self) {
        if self.inbox.open.is_empty() {
            self.inbox.rest(&self.account);
        }
    }

    /// Tells the peer that this direction is over, if that can be done at once.
    pub fn say_goodbye(&mut self, alert: Alert) {
        let _ = self.put(ContentType::Alert, &alert.content());
        let _ = self.poll_flush(&mut Context::from_waker(Waker::noop()));
    }

    /// Ends the session with a last frame, if there is one. If all of it can be said at once, the connection may end in
    /// order as well; otherwise it is reset.
    pub fn close(&mut self, last: Option<Control>) {
        if last.is_some_and(|last| self.put_frame(last).is_err()) {
            return;
        }
        self.say_goodbye(Alert::CLOSE_NOTIFY);
        if !self.has_waiting() {
            let _ = sockopt::close_gracefully(&self.tcp);
        }
    }
}

/// Reads into the places for content of all records of a buffer.
fn read_into(
    source: &TcpStream,
    lease: &mut Lease,
    content: &Range<usize>,
) -> io::Result<Option<usize>> {
    let count = lease.size().records();
    let mut slots = lease.chunks_exact_mut(SLOT);
    let mut places: [IoSliceMut<'_>; Size::Sixteen.records()] = std::array::from_fn(|_| {
        IoSliceMut::new(slots.next().map_or(&mut [], |slot| &mut slot[content.clone()]))
    });
    readiness::try_read(source, &mut places[..count])
}

impl Inbox {
    /// Room behind what has not been opened yet, in a buffer of the size that the traffic asks for.
    fn room(&mut self, account: &Arc<Account>) -> &mut [u8] {
        let begun = self.sealed.len();
        let lease = match self.lease.take() {
            Some(mut lease) if lease.size() >= self.size => {
                lease.copy_within(self.sealed.clone(), 0);
                lease
            }
            small => {
                let mut lease = account.lease(self.size);
                if let Some(small) = small {
                    lease[..begun].copy_from_slice(&small[self.sealed.clone()]);
                }
                lease
            }
        };
        self.sealed = 0..begun;
        &mut self.lease.insert(lease)[begun..]
    }

    /// Holds no more than it must while nothing comes: nothing, or the smallest buffer for a record that has begun.
    fn rest(&mut self, account: &Arc<Account>) {
        let begun = self.sealed.len();
        match &self.lease {
            Some(lease) if begun > 0 && lease.size() > Size::One && begun <= Size::One.bytes() => {
                let mut small = account.lease(Size::One);
                small[..begun].copy_from_slice(&lease[self.sealed.clone()]);
                self.lease = Some(small);
                self.sealed = 0..begun;
            }
            Some(_) if begun == 0 => {
                self.lease = None;
                self.sealed = 0..0;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
