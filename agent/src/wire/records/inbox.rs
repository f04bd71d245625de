//! Records that have come from the peer.

use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::sys::readiness;
use crate::wire::buffers::{Account, Lease, Size};
use crate::wire::pieces::Pieces;
use crate::wire::record::{Opened, Opener, RecordError};

/// In the order of the buffer: what waits for the application (`pieces`), what else is open of the record that was opened
/// last (`lease[open]`), and what is sealed (`lease[sealed]`).
#[derive(Debug, Default)]
pub struct Inbox {
    lease: Option<Lease>,
    pub pieces: Pieces,
    open: Range<usize>,
    sealed: Range<usize>,
    /// Of the next lease, by what the last read has brought.
    pub size: Size,
}

impl Inbox {
    /// An inbox with bytes that are open, and bytes that are sealed. `None` if they are more than the largest buffer holds.
    pub fn holding(account: &Arc<Account>, open: &[u8], sealed: &[u8]) -> Option<Self> {
        let mut inbox = Self::default();
        let length = open.len() + sealed.len();
        if length > 0 {
            let mut lease = account.lease_for(length)?;
            lease[..open.len()].copy_from_slice(open);
            lease[open.len()..length].copy_from_slice(sealed);
            inbox.lease = Some(lease);
            inbox.open = 0..open.len();
            inbox.sealed = open.len()..length;
        }
        Some(inbox)
    }

    pub fn buffer(&self) -> &[u8] {
        self.lease.as_deref().unwrap_or_default()
    }

    /// What is open and has not been consumed.
    pub fn open_bytes(&self) -> &[u8] {
        // The place of what has been consumed may be one of a larger buffer.
        self.opened().map_or(&[], |open| &self.buffer()[open])
    }

    /// What is not open yet.
    pub fn sealed_bytes(&self) -> &[u8] {
        self.lease.as_deref().map_or(&[], |lease| &lease[self.sealed.clone()])
    }

    /// The place of what is open and has not been consumed, if there is anything.
    pub fn opened(&self) -> Option<Range<usize>> {
        Some(self.open.clone()).filter(|open| !open.is_empty())
    }

    /// Opens the next record. `None` if it is not there as a whole.
    pub fn open(&mut self, opener: &mut Opener) -> Result<Option<Opened>, RecordError> {
        let Some(lease) = &mut self.lease else {
            return Ok(None);
        };
        let Some((length, opened)) = opener.open(&mut lease[self.sealed.clone()])? else {
            return Ok(None);
        };
        let start = self.sealed.start;
        self.sealed.start += length;
        if let Opened::Data(place) = &opened {
            self.open = start + place.start..start + place.end;
        }
        Ok(Some(opened))
    }

    pub fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.open.len());
        self.open.start += bytes;
    }

    pub fn has_unread(&self) -> bool {
        !self.open.is_empty() || !self.sealed.is_empty()
    }

    /// Reads once behind what is there. `None` if there is nothing to read.
    pub fn read_from(
        &mut self,
        tcp: &TcpStream,
        account: &Arc<Account>,
    ) -> io::Result<Option<usize>> {
        let room = self.room(account);
        let wanted = room.len();
        let read = readiness::try_read(tcp, &mut [IoSliceMut::new(room)])?;
        if let Some(read) = read {
            self.sealed.end += read;
            self.size = self.size.adapted(read, wanted);
        }
        Ok(read)
    }

    /// The same, without asking the runtime whether there is anything to read.
    pub fn read_now(&mut self, tcp: &TcpStream, account: &Arc<Account>) -> io::Result<usize> {
        let read = nix::unistd::read(tcp, self.room(account))?;
        self.sealed.end += read;
        Ok(read)
    }

    /// Room behind what has not been opened yet, in a buffer of the size that the traffic asks for.
    fn room(&mut self, account: &Arc<Account>) -> &mut [u8] {
        debug_assert!(self.open.is_empty() && self.pieces.is_empty());
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

    /// Releases memory while nothing comes: it keeps nothing, or the smallest buffer for a record that has begun.
    pub fn rest(&mut self, account: &Arc<Account>) {
        if !self.open.is_empty() || !self.pieces.is_empty() {
            return;
        }
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
