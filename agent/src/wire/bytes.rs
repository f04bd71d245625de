//! One flow, whose bytes are the data of the records: `sheath/0` between agents, and TLS 1.3 with everybody else.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::buffers::Account;
use super::mode::Mode;
use super::record::{CLOSE_NOTIFY, ContentType};
use super::records::{Received, RecordStream, SavedRecords};
use super::saved::{Encoded, NotRestored, NotSaved, SavedWire};
use super::{Abort, Collected, Ended, Filled, SendError, Session, Slices, Wire, WireError};
use crate::flow::Role;
use crate::sys::sockopt;

/// Between agents, of which one knows no later protocol.
pub static AGENTS: Mode = Mode {
    name: "sheath/0",
    alpn: Some(b"sheath/0"),
    start: Some(|records, role| Box::new(Bytes::new(records, role, &AGENTS))),
    restore: Some(|state, tcp, account| Bytes::restore(&AGENTS, state, tcp, account)),
};

/// With a peer that is no agent, or does not say so.
pub static FOREIGN: Mode = Mode {
    name: "tls1.3",
    alpn: None,
    start: Some(start_foreign),
    restore: Some(|state, tcp, account| Bytes::restore(&FOREIGN, state, tcp, account)),
};

/// Starts a session for any other protocol that was agreed on.
pub fn start_foreign(records: RecordStream, role: Role) -> Box<dyn Session> {
    Box::new(Bytes::new(records, role, &FOREIGN))
}

/// Version of what [`Bytes::save`] makes.
const VERSION: u16 = 1;

/// A session that is one flow.
#[derive(Debug)]
pub struct Bytes {
    records: RecordStream,
    mode: &'static Mode,
    role: Role,
    /// The peer has ended its direction.
    has_end: bool,
}

/// The state of a [`Bytes`].
#[derive(Serialize, Deserialize)]
struct SavedBytes {
    role: Role,
    records: SavedRecords,
    has_end: bool,
}

impl Bytes {
    #[must_use]
    pub fn new(records: RecordStream, role: Role, mode: &'static Mode) -> Self {
        Self { records, mode, role, has_end: false }
    }

    fn restore(
        mode: &'static Mode,
        state: &Encoded,
        tcp: StdTcpStream,
        account: Arc<Account>,
    ) -> Result<Box<dyn Session>, NotRestored> {
        let saved: SavedBytes = state.decode(VERSION)?;
        let peer_is_client = saved.role == Role::Server;
        Ok(Box::new(Self {
            records: RecordStream::restore(&saved.records, peer_is_client, tcp, account)?,
            mode,
            role: saved.role,
            has_end: saved.has_end,
        }))
    }
}

impl Wire for Bytes {
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
        self.records.poll_seal_from(cx, app, |_| [])
    }

    fn end_sending(&mut self) -> Result<(), WireError> {
        self.records.put(ContentType::Alert, &CLOSE_NOTIFY)
    }

    /// Data behind close_notify is to be ignored (RFC 8446, 6.1); an alert is not.
    fn collect(&mut self) -> Result<Collected, WireError> {
        while !self.records.is_full_for_app() {
            match self.records.receive()? {
                Received::Nothing => break,
                Received::Closed => {
                    self.has_end = true;
                    return Ok(Collected::End);
                }
                Received::Data(place) => {
                    self.records.consume(place.len());
                    if !self.has_end {
                        self.records.keep_for_app(place);
                    }
                }
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
        Poll::Ready(match ready!(self.records.poll_fill(cx))? {
            0 if self.has_end => Ok(Filled::End),
            0 => Err(WireError::cut()),
            read => Ok(Filled::Bytes(read)),
        })
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

    /// TLS has no alerts for most of it: a failure without an alert is a reset.
    fn abort(&mut self, why: Abort<'_>) {
        if let Abort::Wire(WireError::Record(error)) = why {
            self.records.alert(error);
        }
    }
}

impl Session for Bytes {
    fn mode(&self) -> &'static Mode {
        self.mode
    }

    fn finish(self: Box<Self>) -> io::Result<Option<Box<dyn Session>>> {
        sockopt::close_gracefully(self.records.tcp()).map(|()| None)
    }

    fn save(&self) -> Result<SavedWire, NotSaved> {
        let saved =
            SavedBytes { role: self.role, records: self.records.save(), has_end: self.has_end };
        Ok(SavedWire { mode: self.mode.name.to_owned(), state: Encoded::new(VERSION, &saved)? })
    }

    #[cfg(test)]
    fn into_records(self: Box<Self>) -> RecordStream {
        self.records
    }
}
