//! Buffers for bytes in transit. They are leased only while bytes move: an idle flow holds none.
//!
//! A lease has one of three sizes. A buffer that is given back is kept for the next lease, up to a bound. The bytes that one
//! workload's flows hold are counted. Over its limit they get the smallest size alone: they go on, slowly, and no other
//! workload notices.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;
use serde::{Deserialize, Serialize};

use super::record::LONGEST_RECORD;

/// How much a lease holds, counted in records of full size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Size {
    #[default]
    One,
    Four,
    Sixteen,
}

impl Size {
    const ALL: [Self; 3] = [Self::One, Self::Four, Self::Sixteen];

    #[must_use]
    pub const fn records(self) -> usize {
        match self {
            Self::One => 1,
            Self::Four => 4,
            Self::Sixteen => 16,
        }
    }

    /// Room for the longest records that a peer may send.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.records() * LONGEST_RECORD
    }

    /// The size for a flow that has just moved `moved` of the `room` bytes it had.
    #[must_use]
    pub fn adapted(self, moved: usize, room: usize) -> Self {
        match self {
            Self::One if moved == room => Self::Four,
            Self::Four if moved == room => Self::Sixteen,
            Self::Sixteen if moved <= room / 8 => Self::Four,
            Self::Four if moved <= room / 8 => Self::One,
            same => same,
        }
    }

    /// How many leases of this size are kept for later.
    const fn kept(self) -> usize {
        match self {
            Self::One => 64,
            Self::Four => 16,
            Self::Sixteen => 8,
        }
    }
}

/// Buffers that are not leased.
#[derive(Debug)]
pub struct Buffers {
    spare: [Spare; 3],
}

/// Buffers of one size.
#[derive(Debug)]
struct Spare {
    kept: ArrayQueue<Box<[u8]>>,
    /// The fewest that were kept at any time since the last [`Buffers::trim`].
    fewest: AtomicUsize,
}

impl Default for Buffers {
    fn default() -> Self {
        let none =
            |size: Size| Spare { kept: ArrayQueue::new(size.kept()), fewest: AtomicUsize::new(0) };
        Self { spare: Size::ALL.map(none) }
    }
}

impl Buffers {
    /// Frees buffers that were not needed since the last call.
    pub fn trim(&self) {
        for spare in &self.spare {
            for _ in 0..spare.fewest.load(Relaxed) {
                drop(spare.kept.pop());
            }
            spare.fewest.store(spare.kept.len(), Relaxed);
        }
    }

    fn take(&self, size: Size) -> Option<Box<[u8]>> {
        let spare = &self.spare[size as usize];
        let bytes = spare.kept.pop();
        spare.fewest.fetch_min(spare.kept.len(), Relaxed);
        bytes
    }

    /// If enough are kept, it is freed.
    fn put(&self, size: Size, bytes: Box<[u8]>) {
        let _ = self.spare[size as usize].kept.push(bytes);
    }
}

/// What the flows of one workload hold.
#[derive(Debug)]
pub struct Account {
    buffers: Arc<Buffers>,
    /// Bytes.
    limit: usize,
    leased: AtomicUsize,
    capped: AtomicU64,
}

impl Account {
    /// `limit` is in bytes.
    #[must_use]
    pub fn new(buffers: Arc<Buffers>, limit: usize) -> Arc<Self> {
        Arc::new(Self {
            buffers,
            limit,
            leased: AtomicUsize::default(),
            capped: AtomicU64::default(),
        })
    }

    /// Leases a buffer of this size, or of the smallest if that is all the limit leaves.
    #[must_use]
    pub fn lease(self: &Arc<Self>, wanted: Size) -> Lease {
        let mut size = wanted;
        let leased = self.leased.fetch_add(size.bytes(), Relaxed);
        if size > Size::One && leased + size.bytes() > self.limit {
            self.leased.fetch_sub(size.bytes() - Size::One.bytes(), Relaxed);
            self.capped.fetch_add(1, Relaxed);
            size = Size::One;
        }
        self.leased_already(size)
    }

    /// Leases a buffer for this many bytes that must be held, whatever the limit is. `None` if there is none so large.
    #[must_use]
    pub fn lease_for(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        let size = Size::ALL.into_iter().find(|size| size.bytes() >= bytes)?;
        self.leased.fetch_add(size.bytes(), Relaxed);
        Some(self.leased_already(size))
    }

    /// A buffer that has been counted.
    fn leased_already(self: &Arc<Self>, size: Size) -> Lease {
        let bytes = self.buffers.take(size);
        // Fresh memory comes zeroed from the system, and what is not used of it is not even there.
        let bytes = bytes.unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice());
        Lease { bytes, size, account: self.clone() }
    }

    /// Bytes that are leased now.
    #[must_use]
    pub fn leased(&self) -> usize {
        self.leased.load(Relaxed)
    }

    /// How often a lease was smaller than wanted.
    #[must_use]
    pub fn capped(&self) -> u64 {
        self.capped.load(Relaxed)
    }
}

/// A buffer, for as long as this lives.
pub struct Lease {
    bytes: Box<[u8]>,
    size: Size,
    account: Arc<Account>,
}

impl Lease {
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl fmt::Debug for Lease {
    /// Never the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.account.leased.fetch_sub(self.size.bytes(), Relaxed);
        let bytes = std::mem::take(&mut self.bytes);
        self.account.buffers.put(self.size, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_counted_and_come_back() {
        let buffers = Arc::new(Buffers::default());
        let account = Account::new(buffers.clone(), usize::MAX);
        let lease = account.lease(Size::Four);
        assert_eq!((lease.len(), lease.size()), (Size::Four.bytes(), Size::Four));
        assert_eq!(account.leased(), Size::Four.bytes());
        let place = lease.as_ptr();
        drop(lease);
        assert_eq!(account.leased(), 0);
        assert_eq!(account.lease(Size::Four).as_ptr(), place, "not taken from what is kept");
    }

    #[test]
    fn what_nobody_needs_is_let_go() {
        let buffers = Arc::new(Buffers::default());
        let kept = || buffers.spare[Size::One as usize].kept.len();
        let account = Account::new(buffers.clone(), usize::MAX);
        let lease = |count| -> Vec<_> { (0..count).map(|_| account.lease(Size::One)).collect() };
        drop(lease(10));
        buffers.trim();
        assert_eq!(kept(), 10, "they were needed");
        drop(lease(3));
        buffers.trim();
        assert_eq!(kept(), 3);
        let held = lease(3);
        buffers.trim();
        drop(held);
        buffers.trim();
        assert_eq!(kept(), 3, "they were needed");
        buffers.trim();
        assert_eq!(kept(), 0);
    }

    #[test]
    fn over_its_limit_a_workload_gets_small_buffers_and_still_gets_them() {
        let buffers = Arc::new(Buffers::default());
        let account = Account::new(buffers.clone(), Size::Sixteen.bytes());
        let large = account.lease(Size::Sixteen);
        let small: Vec<_> = (0..10).map(|_| account.lease(Size::Four)).collect();
        assert!(small.iter().all(|lease| lease.size() == Size::One));
        assert_eq!(account.capped(), 10);
        assert_eq!(Account::new(buffers, 1 << 20).lease(Size::Four).size(), Size::Four);
        drop((large, small));
        assert_eq!(account.leased(), 0);
        assert_eq!(account.lease(Size::Sixteen).size(), Size::Sixteen);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = Arc::new(Buffers::default());
        let account = Account::new(buffers.clone(), usize::MAX);
        let many: Vec<_> = (0..1000).map(|_| account.lease(Size::One)).collect();
        drop(many);
        assert_eq!(buffers.spare[Size::One as usize].kept.len(), Size::One.kept());
    }

    #[test]
    fn sizes_follow_the_traffic() {
        assert_eq!(Size::One.adapted(100, 100), Size::Four);
        assert_eq!(Size::Four.adapted(400, 400), Size::Sixteen);
        assert_eq!(Size::Sixteen.adapted(1600, 1600), Size::Sixteen);
        assert_eq!(Size::Sixteen.adapted(900, 1600), Size::Sixteen);
        assert_eq!(Size::Sixteen.adapted(200, 1600), Size::Four);
        assert_eq!(Size::Four.adapted(1, 400), Size::One);
        assert_eq!(Size::One.adapted(1, 100), Size::One);
    }
}
