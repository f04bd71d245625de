//! Records that wait to be written.
//!
//! Data is read into slots of a buffer, one for each record, and sealed there. In each slot the data begins at a multiple of
//! the size of a cache line, as it does in the kernel's pages: where a destination lies a few bytes behind its source, counted
//! within their pages, processors with fast string operations (FSRM) copy at a small part of their speed. So between
//! two records there is a gap, and what is written is a list of pieces.

use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use crate::sys::readiness;
use crate::wire::buffers::{Account, Lease, Size};
use crate::wire::record::{
    ContentType, HEADER, LONGEST_CONTENT, OVERHEAD, SealError, Sealer, TRAILER,
};

/// Bytes of a cache line.
const LINE: usize = 64;
/// Where the data of a slot's record begins.
const DATA: usize = LINE;
/// One full record of our own, and the gap before it.
const SLOT: usize = (DATA + LONGEST_CONTENT + TRAILER).next_multiple_of(LINE);
/// Pieces that are written at once: a record of each slot.
const PIECES: usize = Size::Sixteen.records();

// Behind the record of the last slot there is room for some control records: the longest has 40 bytes.
const _: () =
    assert!(Size::One.bytes() - (DATA + LONGEST_CONTENT + TRAILER) >= 2 * (OVERHEAD + 40));
const _: () = assert!(Size::Sixteen.bytes() - PIECES * SLOT >= 2 * (OVERHEAD + 40));

/// Records that are sealed: one in each of the first slots, as long as a slot's can be, and behind them a run of others.
#[derive(Debug, Default)]
pub struct Outbox {
    lease: Option<Lease>,
    /// How many slots hold a full record.
    full: usize,
    /// Where a full record is in its slot.
    record: Range<usize>,
    /// The last slot's record, and those that were put behind it: `lease[run]`.
    run: Range<usize>,
    /// Bytes of all these that have been written.
    written: usize,
    /// Of the next lease, by what the last read has brought.
    pub size: Size,
}

impl Outbox {
    /// An outbox in which these bytes wait. `None` if they are more than the largest buffer holds.
    pub fn holding(account: &Arc<Account>, bytes: &[u8]) -> Option<Self> {
        let mut outbox = Self::default();
        if !bytes.is_empty() {
            let mut lease = account.lease_for(bytes.len())?;
            lease[..bytes.len()].copy_from_slice(bytes);
            outbox.lease = Some(lease);
            outbox.run = 0..bytes.len();
        }
        Some(outbox)
    }

    /// What waits.
    pub fn bytes(&self) -> Vec<u8> {
        let Some(lease) = &self.lease else {
            return Vec::new();
        };
        let (slices, count) = self.slices(lease);
        slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.full * self.record.len() + self.run.len() - self.written
    }

    /// Ready when nothing waits.
    pub fn poll_write(&mut self, tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(lease) = &self.lease else {
            return Poll::Ready(Ok(()));
        };
        while self.len() > 0 {
            let (slices, count) = self.slices(lease);
            self.written += ready!(readiness::poll_write(tcp, cx, &slices[..count]))?;
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    fn clear(&mut self) {
        self.full = 0;
        self.run = 0..0;
        self.written = 0;
    }

    /// The pieces that wait, and how many there are.
    fn slices<'l>(&self, lease: &'l Lease) -> ([IoSlice<'l>; PIECES + 1], usize) {
        let record = |slot| slot * SLOT + self.record.start..slot * SLOT + self.record.end;
        let mut pieces = (0..self.full).map(record).chain([self.run.clone()]);
        let mut written = self.written;
        let mut count = 0;
        let mut slices = [IoSlice::new(&[]); PIECES + 1];
        for piece in &mut pieces {
            let gone = written.min(piece.len());
            written -= gone;
            if gone < piece.len() {
                slices[count] = IoSlice::new(&lease[piece.start + gone..piece.end]);
                count += 1;
            }
        }
        (slices, count)
    }

    /// Room for one more record behind those that wait.
    pub fn room(&mut self, account: &Arc<Account>) -> &mut [u8] {
        let lease = self.lease.get_or_insert_with(|| account.lease(Size::One));
        &mut lease[self.run.end..]
    }

    /// So many bytes of the room are records now.
    pub fn grow(&mut self, bytes: usize) {
        self.run.end += bytes;
    }

    /// Holds no buffer while nothing waits.
    pub fn give_back(&mut self) {
        self.lease = None;
    }

    /// Reads once into the places for data of all records of a buffer. `None` if there is nothing to read. Nothing may be
    /// waiting.
    pub fn read_from<const PREFIX: usize>(
        &mut self,
        source: &TcpStream,
        account: &Arc<Account>,
    ) -> io::Result<Option<usize>> {
        debug_assert_eq!(self.len(), 0);
        let wanted = self.size;
        let held = self.lease.take_if(|lease| lease.size() == wanted);
        let lease = self.lease.insert(held.unwrap_or_else(|| account.lease(wanted)));
        let data = DATA..DATA + LONGEST_CONTENT - PREFIX;
        let records = lease.size().records();
        let mut slots = lease.chunks_exact_mut(SLOT);
        let mut places: [IoSliceMut<'_>; PIECES] = std::array::from_fn(|_| {
            IoSliceMut::new(slots.next().map_or(&mut [], |slot| &mut slot[data.clone()]))
        });
        let read = readiness::try_read(source, &mut places[..records])?;
        if let Some(read) = read {
            self.size = wanted.adapted(read, data.len() * records);
        }
        Ok(read)
    }

    /// Makes records of the slots that hold `length` bytes of data.
    pub fn seal<const PREFIX: usize>(
        &mut self,
        length: usize,
        sealer: &mut Sealer,
        prefix: impl Fn(usize) -> [u8; PREFIX],
    ) -> Result<(), SealError> {
        let longest = LONGEST_CONTENT - PREFIX;
        let start = DATA - PREFIX - HEADER;
        self.clear();
        let slots = self.lease.iter_mut().flat_map(|lease| lease.chunks_exact_mut(SLOT));
        let mut rest = length;
        self.record = start..DATA + longest + TRAILER;
        for (number, slot) in slots.take(length.div_ceil(longest)).enumerate() {
            let length = rest.min(longest);
            rest -= length;
            slot[DATA - PREFIX..DATA].copy_from_slice(&prefix(length));
            let end = DATA + length + TRAILER;
            sealer.seal(ContentType::ApplicationData, &mut slot[start..end])?;
            if rest > 0 {
                self.full = number + 1;
            } else {
                self.run = number * SLOT + start..number * SLOT + end;
            }
        }
        Ok(())
    }
}
