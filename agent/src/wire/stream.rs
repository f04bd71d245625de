//! One flow on a stream that is not ours: the TLS library's, or TCP itself.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::buffers::{Account, Lease, Size};
use super::record::LONGEST_CONTENT;
use super::saved::{NotRestored, NotSaved, SavedWire};
use super::{Abort, Collected, Ended, Filled, Mode, SendError, Session, Slices, Wire, WireError};
use crate::sys::sockopt;
use crate::sys::tcp::Tcp;

/// A stream that carries one flow.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Debug + Send + Sized + 'static {
    /// The kind of session it makes.
    const MODE: &'static Mode;

    /// The connection that it is on.
    fn tcp(&self) -> &Arc<TcpStream>;

    /// As [`Session::save`], when `stream` is the rest of the state.
    ///
    /// # Errors
    /// If another process cannot go on with it.
    fn save(&self, stream: SavedStream) -> Result<SavedWire, NotSaved>;
}

/// A stream, and the bytes that are on their way to it and from it.
#[derive(Debug)]
pub struct Stream<S> {
    io: S,
    account: Arc<Account>,
    sending: Held,
    receiving: Held,
    end: End,
    /// The peer has ended its direction.
    has_end: bool,
    /// Something was written that may wait in the stream's own buffer.
    unflushed: bool,
}

/// Bytes that were read and have not been written: `lease[waiting]`.
#[derive(Debug, Default)]
struct Held {
    lease: Option<Lease>,
    waiting: Range<usize>,
}

/// How far the end of our direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum End {
    Open,
    /// It is to be passed on once what waits has been written.
    Wanted,
    Sent,
}

/// The state of a [`Stream`], without that of the stream below.
#[derive(Serialize, Deserialize)]
pub struct SavedStream {
    unsent: Zeroizing<Vec<u8>>,
    for_app: Zeroizing<Vec<u8>>,
    end: End,
    has_end: bool,
}

impl<S: Carrier> Stream<S> {
    pub fn new(io: S, account: Arc<Account>) -> Self {
        Self {
            io,
            account,
            sending: Held::default(),
            receiving: Held::default(),
            end: End::Open,
            has_end: false,
            unflushed: false,
        }
    }

    /// # Errors
    /// If the state contradicts itself.
    pub fn restore(saved: &SavedStream, io: S, account: Arc<Account>) -> Result<Self, NotRestored> {
        let too_much = || NotRestored::Contradiction("more bytes than a buffer holds");
        let sending = Held::holding(&account, &saved.unsent).ok_or_else(too_much)?;
        let receiving = Held::holding(&account, &saved.for_app).ok_or_else(too_much)?;
        let SavedStream { end, has_end, .. } = *saved;
        Ok(Self { io, account, sending, receiving, end, has_end, unflushed: false })
    }
}

impl<S: Carrier> Wire for Stream<S> {
    fn tcp(&self) -> &Arc<TcpStream> {
        self.io.tcp()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        while !self.sending.waiting.is_empty() {
            let waiting = self.sending.bytes();
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, waiting))?;
            if written == 0 {
                return Poll::Ready(Err(WireError::Io(io::ErrorKind::WriteZero.into())));
            }
            self.sending.waiting.start += written;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        if self.end == End::Wanted {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.end = End::Sent;
        }
        Poll::Ready(Ok(()))
    }

    fn unsent(&self) -> usize {
        self.sending.waiting.len()
    }

    fn poll_send_from(
        &mut self,
        cx: &mut Context<'_>,
        app: &TcpStream,
    ) -> Poll<Result<usize, SendError>> {
        let read = self.sending.poll_read(cx, &mut Tcp(app), &self.account);
        read.map_err(SendError::App)
    }

    fn end_sending(&mut self) -> Result<(), WireError> {
        self.end = End::Wanted;
        Ok(())
    }

    fn collect(&mut self) -> Result<Collected, WireError> {
        Ok(Collected::More)
    }

    fn collected(&self) -> Slices<'_> {
        Slices::of(self.receiving.bytes())
    }

    fn taken(&mut self, bytes: usize) {
        self.receiving.waiting.start += bytes;
    }

    fn discard(&mut self) {
        self.receiving = Held::default();
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Filled, WireError>> {
        if self.has_end {
            return Poll::Ready(Ok(Filled::End));
        }
        let read = ready!(self.receiving.poll_read(cx, &mut self.io, &self.account))?;
        self.has_end = read == 0;
        Poll::Ready(Ok(if self.has_end { Filled::End } else { Filled::Bytes(read) }))
    }

    fn rest(&mut self, direction: Ended) {
        let held = match direction {
            Ended::Sending => &mut self.sending,
            Ended::Receiving => &mut self.receiving,
        };
        if held.waiting.is_empty() {
            held.lease = None;
        }
    }

    /// The other end would understand no more than a reset.
    fn abort(&mut self, _: Abort<'_>) {}
}

impl<S: Carrier> Session for Stream<S> {
    fn mode(&self) -> &'static Mode {
        S::MODE
    }

    fn finish(self: Box<Self>) -> io::Result<Option<Box<dyn Session>>> {
        sockopt::close_gracefully(self.io.tcp()).map(|()| None)
    }

    fn save(&self) -> Result<SavedWire, NotSaved> {
        self.io.save(SavedStream {
            unsent: Zeroizing::new(self.sending.bytes().to_vec()),
            for_app: Zeroizing::new(self.receiving.bytes().to_vec()),
            end: self.end,
            has_end: self.has_end,
        })
    }
}

impl Held {
    fn holding(account: &Arc<Account>, bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let mut lease = account.lease_for(bytes.len())?;
        lease[..bytes.len()].copy_from_slice(bytes);
        Some(Self { lease: Some(lease), waiting: 0..bytes.len() })
    }

    fn bytes(&self) -> &[u8] {
        self.lease.as_deref().map_or(&[], |lease| &lease[self.waiting.clone()])
    }

    /// Reads once, when nothing waits; no more than fits into one record, so that a full read becomes a full record. Holds no
    /// buffer while there is nothing to read.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        account: &Arc<Account>,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.waiting.is_empty());
        let lease = self.lease.get_or_insert_with(|| account.lease(Size::One));
        let mut room = ReadBuf::new(&mut lease[..LONGEST_CONTENT]);
        let read = Pin::new(from).poll_read(cx, &mut room);
        let filled = room.filled().len();
        if filled == 0 {
            self.lease = None;
        }
        self.waiting = 0..filled;
        Poll::Ready(ready!(read).map(|()| filled))
    }
}
