//! Records that wait to be written.

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

/// One full record of our own.
const SLOT: usize = LONGEST_CONTENT + OVERHEAD;

/// Sealed records: `lease[waiting]`.
#[derive(Debug, Default)]
pub struct Outbox {
    lease: Option<Lease>,
    waiting: Range<usize>,
    /// Of the next lease, by what the last read has brought.
    pub size: Size,
}

impl Outbox {
    /// With these bytes waiting. `None` if they are more than the largest buffer holds.
    pub fn holding(account: &Arc<Account>, bytes: &[u8]) -> Option<Self> {
        let mut outbox = Self::default();
        if !bytes.is_empty() {
            let mut lease = account.lease_for(bytes.len())?;
            lease[..bytes.len()].copy_from_slice(bytes);
            outbox.lease = Some(lease);
            outbox.waiting = 0..bytes.len();
        }
        Some(outbox)
    }

    /// What waits.
    pub fn bytes(&self) -> &[u8] {
        self.lease.as_deref().map_or(&[], |lease| &lease[self.waiting.clone()])
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Ready when nothing waits.
    pub fn poll_write(&mut self, tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(lease) = &self.lease else {
            return Poll::Ready(Ok(()));
        };
        while !self.waiting.is_empty() {
            let waiting = IoSlice::new(&lease[self.waiting.clone()]);
            self.waiting.start += ready!(readiness::poll_write(tcp, cx, &[waiting]))?;
        }
        self.waiting = 0..0;
        Poll::Ready(Ok(()))
    }

    /// Room for one more record behind those that wait.
    pub fn room(&mut self, account: &Arc<Account>) -> &mut [u8] {
        let lease = self.lease.get_or_insert_with(|| account.lease(Size::One));
        &mut lease[self.waiting.end..]
    }

    /// So many bytes of the room are records now.
    pub fn grow(&mut self, bytes: usize) {
        self.waiting.end += bytes;
    }

    /// Holds no buffer while nothing waits.
    pub fn give_back(&mut self) {
        self.lease = None;
    }

    /// Reads once into the places for data of all records of a buffer. `None` if there is nothing to read.
    pub fn read_from<const PREFIX: usize>(
        &mut self,
        source: &TcpStream,
        account: &Arc<Account>,
    ) -> io::Result<Option<usize>> {
        let wanted = self.size;
        let held = self.lease.take_if(|lease| lease.size() == wanted);
        let lease = self.lease.insert(held.unwrap_or_else(|| account.lease(wanted)));
        let data = HEADER + PREFIX..HEADER + LONGEST_CONTENT;
        let records = lease.size().records();
        let mut slots = lease.chunks_exact_mut(SLOT);
        let mut places: [IoSliceMut<'_>; Size::Sixteen.records()] = std::array::from_fn(|_| {
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
        let data = HEADER + PREFIX..HEADER + LONGEST_CONTENT;
        let slots = self.lease.iter_mut().flat_map(|lease| lease.chunks_exact_mut(SLOT));
        let mut rest = length;
        let mut sealed = 0;
        for slot in slots.take(length.div_ceil(data.len())) {
            let length = rest.min(data.len());
            rest -= length;
            slot[HEADER..data.start].copy_from_slice(&prefix(length));
            let record = &mut slot[..data.start + length + TRAILER];
            sealer.seal(ContentType::ApplicationData, record)?;
            sealed += record.len();
        }
        self.waiting = 0..sealed;
        Ok(())
    }
}
