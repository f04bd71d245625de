//! What carries a flow between the nodes, from the end of the handshake to the last byte.
//!
//! A [`Wire`] moves the bytes of one flow: that is what the relay needs. A [`Session`] is a wire as the pipeline sees
//! it: something on which flows begin, are accepted or refused, and end; one flow, or one after the other. Which kind
//! a handshake leads to is in one table, [`modes::MODES`], by the ALPN protocol that it has agreed on.
//!
//! | kind | bytes of the flow are in | used |
//! |---|---|---|
//! | [`flows`] | frames in TLS 1.3 records, flow after flow | between agents (`sheath/1`) |
//! | [`bytes`] | TLS 1.3 records | between agents (`sheath/0`), and with external peers |
//! | [`library`] | records of the TLS library | with peers that may agree on TLS 1.2 |
//! | [`plain`] | TCP | permissive ports |
//!
//! The first two stand on [`records::RecordStream`], which puts the record layer of [`record`] on a TCP connection; the
//! others on `stream::Stream`. A wire owns every byte that has been read and not been passed on, so that a relay can
//! stop between two polls and lose nothing.
//!
//! To add a kind: a file beside these with an implementation of both traits, and a line in [`modes::MODES`].

pub mod buffers;
pub mod bytes;
mod error;
pub mod flows;
pub mod library;
pub mod mode;
pub mod modes;
mod pieces;
pub mod plain;
pub mod record;
pub mod records;
pub mod saved;
mod stream;
pub mod words;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

pub use error::{Abort, NotAccepted, SendError, WireError};
pub use flows::{GoAwayCode, RefusalCode, ResetCode};
pub use mode::Mode;
pub use pieces::{PIECES, Slices};
use saved::{NotSaved, SavedWire};

/// What the relay needs of a session: bytes in each direction, the end of each, and the failure of
/// the whole. The relay decides when bytes move; the wire knows how.
pub trait Wire: fmt::Debug + Send {
    /// The TCP connection below.
    fn tcp(&self) -> &Arc<TcpStream>;

    /// Writes what waits to be written. Ready when nothing is left of it.
    ///
    /// # Errors
    /// What ends the session. An I/O error may still leave the other direction open.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>>;

    /// True if the wire has something of its own to write, such as the answer to a KeyUpdate.
    fn owes_write(&self) -> bool {
        false
    }

    /// Bytes that wait to be written.
    fn unsent(&self) -> usize;

    /// Reads once from the application, for the peer. To be called when nothing waits to be written. Returns how many bytes
    /// came; none when the application has ended its direction.
    ///
    /// # Errors
    /// Of the application or of the wire, as [`SendError`] says.
    fn poll_send_from(
        &mut self,
        cx: &mut Context<'_>,
        app: &TcpStream,
    ) -> Poll<Result<usize, SendError>>;

    /// Puts the end of our direction behind what waits to be written.
    ///
    /// # Errors
    /// What ends the session.
    fn end_sending(&mut self) -> Result<(), WireError>;

    /// Takes note that the end of our direction has left.
    fn has_sent_end(&mut self) {}

    /// Makes what has been read ready for the application, as much as is written at once.
    ///
    /// # Errors
    /// What ends the session; final.
    fn collect(&mut self) -> Result<Collected, WireError>;

    /// What was collected and not yet taken.
    fn collected(&self) -> Slices<'_>;

    /// Takes note that the application has taken so many bytes of what was collected.
    fn taken(&mut self, bytes: usize);

    /// Drops what was collected: the application reads no more.
    fn discard(&mut self);

    /// Reads once from the peer. To be called when nothing is left of what was collected.
    ///
    /// # Errors
    /// What ends the session, for instance a connection that ends without an orderly close.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Filled, WireError>>;

    /// Gives back the buffers of a direction that has ended.
    fn rest(&mut self, direction: Ended);

    /// Releases memory while nothing moves; the next byte takes a little longer.
    fn rest_keys(&mut self) {}

    /// Tells the peer why the flow is over, as far as that can be done at once. The connection ends in order if all of it could
    /// be said, and is reset otherwise, as soon as the wire is dropped.
    fn abort(&mut self, why: Abort<'_>);
}

/// The result of [`Wire::collect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collected {
    /// There may be more to come.
    More,
    /// The peer has just ended its direction. What was collected comes before that.
    End,
}

/// The result of [`Wire::poll_fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    Bytes(usize),
    /// Nothing more will come, and nothing more can be read.
    End,
}

/// A direction that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Sending,
    Receiving,
}

/// Both ends of a flow, as the client's application sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// A wire on which flows begin and end. The default methods are for a session that is one flow, and never
/// has another.
pub trait Session: Wire {
    /// The kind it is of.
    fn mode(&self) -> &'static Mode;

    /// Client: begins a flow, and does not wait for an answer.
    ///
    /// # Errors
    /// What ends the session.
    fn begin(&mut self, flow: Endpoints) -> Result<(), WireError> {
        let _ = flow;
        Ok(())
    }

    /// Client: ready when the server has taken the flow that was begun last.
    ///
    /// # Errors
    /// Why it has not, and will not.
    fn poll_accepted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotAccepted>> {
        let _ = cx;
        Poll::Ready(Ok(()))
    }

    /// True if flow after flow begins on it, with [`Self::begin`] and [`Self::poll_next_flow`]. If not, the session is the flow.
    fn carries_many(&self) -> bool {
        false
    }

    /// Server: the next flow that the client begins; `None` if it has none any more.
    ///
    /// # Errors
    /// What ends the session.
    fn poll_next_flow(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Endpoints>, WireError>> {
        let _ = cx;
        Poll::Ready(Ok(None))
    }

    /// Server: accepts the flow.
    ///
    /// # Errors
    /// What ends the session.
    fn accept(&mut self) -> Result<(), WireError> {
        Ok(())
    }

    /// Server: refuses the flow. If the protocol has no message for that, the connection is reset.
    fn refuse(self: Box<Self>, code: RefusalCode) {
        let _ = code;
    }

    /// Both directions of the flow have ended in order. Returns the session if it can have another.
    ///
    /// # Errors
    /// If the connection cannot be closed in order.
    fn finish(self: Box<Self>) -> io::Result<Option<Box<dyn Session>>>;

    /// True unless the peer has said or ended anything since the last flow.
    fn is_quiet(&self) -> bool {
        false
    }

    /// Ends a session between flows in order; a server may say why. Returns why the peer has ended it, if it was the peer.
    fn close(self: Box<Self>, reason: Option<GoAwayCode>) -> Option<GoAwayCode> {
        let _ = reason;
        None
    }

    /// True if the runtime of the calling thread waits for its events.
    fn is_here(&self) -> bool {
        false
    }

    /// The same session, with the runtime of the calling thread to wait for its events.
    ///
    /// # Errors
    /// If that is not possible. The session is lost then.
    fn moved_here(self: Box<Self>) -> io::Result<Box<dyn Session>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The state of the session, for another process to go on with: what [`modes::restore`] takes. The session itself must
    /// not go on afterwards.
    ///
    /// # Errors
    /// If another process cannot go on with it.
    fn save(&self) -> Result<SavedWire, NotSaved>;

    /// The records, for tests that speak or hear out of turn.
    #[cfg(test)]
    fn into_records(self: Box<Self>) -> records::RecordStream {
        panic!("not our own records")
    }
}

#[cfg(test)]
pub(crate) mod testing;
