//! What each workload takes of the agent, and how much of it there is: flows, handshakes, buffers. Whoever wants more
//! than its share is refused or slowed down itself, and nobody else notices.

mod rate;
mod unproven;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use sheath_common::workload::WorkloadId;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::wire::buffers::{Account, Buffers};

use rate::Rate;
use unproven::Room;
pub use unproven::Unproven;

/// Descriptors that flows leave to everything else.
const RESERVE: usize = 512;
/// Clients of one workload that may be connected before they have proved who they are.
const MOST_UNPROVEN: usize = 1024;

/// What each workload may take of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open at once; `None` for half of what the descriptors allow.
    pub flows: Option<usize>,
    pub handshakes_per_second: u32,
    /// Bytes in buffers, beyond one of the smallest for each direction of a flow.
    pub buffers: usize,
}

/// The shares of all workloads.
#[derive(Debug)]
pub struct Shares {
    limits: Limits,
    /// Flows that all workloads together may have open, each with two descriptors.
    capacity: usize,
    /// Handshakes of one workload that may be computed at once.
    turns: usize,
    open: Arc<AtomicUsize>,
    buffers: Arc<Buffers>,
    /// Locked for a lookup alone.
    by_workload: Mutex<HashMap<WorkloadId, Arc<Share>>>,
}

/// What one workload takes.
#[derive(Debug)]
pub struct Share {
    pub buffers: Arc<Account>,
    most_flows: usize,
    flows: AtomicUsize,
    handshakes: Rate,
    turns: Semaphore,
    unproven: Arc<Room>,
    counters: ShareCounters,
}

/// What was refused or slowed down.
#[derive(Debug, Default)]
struct ShareCounters {
    flows_refused: AtomicU64,
    handshakes_refused: AtomicU64,
    handshakes_delayed: AtomicU64,
    unproven_evicted: AtomicU64,
}

/// The right to be open, for as long as this lives.
#[derive(Debug)]
pub struct Admitted {
    share: Arc<Share>,
    /// It is one of the flows that the workload may have.
    is_flow: bool,
    open: Arc<AtomicUsize>,
}

impl Admitted {
    /// The share it is part of.
    #[must_use]
    pub fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Counts it as one of the workload's flows.
    ///
    /// # Errors
    /// If the workload has as many as it may.
    pub fn count(&mut self) -> Result<(), OverLimit> {
        // Counted first, so that two at once cannot both be the last.
        self.is_flow = true;
        if self.share.flows.fetch_add(1, Relaxed) >= self.share.most_flows {
            self.share.counters.flows_refused.fetch_add(1, Relaxed);
            return Err(OverLimit::Flows(self.share.most_flows));
        }
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.is_flow {
            self.share.flows.fetch_sub(1, Relaxed);
        }
        self.open.fetch_sub(1, Relaxed);
    }
}

/// Why a workload gets nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverLimit {
    #[error("the workload has {0} connections open, as many as it may")]
    Flows(usize),
    #[error("all workloads together have {0} connections open, as many as the descriptors allow")]
    Capacity(usize),
    #[error("the workload wants more than {0} handshakes per second")]
    Handshakes(u32),
    /// It was the oldest of whoever has the most of them.
    #[error(
        "the workload has too many clients that have not proved who they are, and no address more than this one's"
    )]
    Unproven,
}

impl Shares {
    /// `threads` is how many cores flows are worked on.
    #[must_use]
    pub fn new(limits: Limits, threads: usize) -> Self {
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Self {
            limits,
            // An eighth is for sessions that wait for the next flow.
            capacity: (descriptors - descriptors / 8).saturating_sub(RESERVE).max(2) / 2,
            // One core is left to others, unless that were half of them: then a burst of connections would take twice as
            // long, and each of its steps makes others wait for a fraction of a millisecond.
            turns: if threads > 2 { threads - 1 } else { threads.max(1) },
            open: Arc::default(),
            buffers: Arc::default(),
            by_workload: Mutex::default(),
        }
    }

    /// Lets go of buffers that nobody has needed since the last call.
    pub fn trim(&self) {
        self.buffers.trim();
    }

    #[must_use]
    pub fn of(&self, workload: WorkloadId) -> Arc<Share> {
        let mut shares = self.by_workload.lock().unwrap_or_else(PoisonError::into_inner);
        shares.entry(workload).or_insert_with(|| Arc::new(self.share())).clone()
    }

    fn share(&self) -> Share {
        Share {
            buffers: Account::new(self.buffers.clone(), self.limits.buffers),
            most_flows: self.limits.flows.unwrap_or(self.capacity / 2),
            flows: AtomicUsize::default(),
            handshakes: Rate::new(self.limits.handshakes_per_second),
            turns: Semaphore::new(self.turns),
            unproven: Room::new(MOST_UNPROVEN.min(self.capacity / 8)),
            counters: ShareCounters::default(),
        }
    }

    /// Lets a workload have one more flow.
    ///
    /// # Errors
    /// If it has as many as it may, or if there are as many as there can be.
    pub fn admit(&self, workload: WorkloadId) -> Result<Admitted, OverLimit> {
        let mut admitted = self.receive(workload)?;
        admitted.count()?;
        Ok(admitted)
    }

    /// Lets a workload have one more connection from somebody who has proved nothing: that is none of its flows, or
    /// strangers could take them all. There is other room for it ([`Share::unproven`]).
    ///
    /// # Errors
    /// If there are as many as there can be.
    pub fn receive(&self, workload: WorkloadId) -> Result<Admitted, OverLimit> {
        let admitted =
            Admitted { share: self.of(workload), is_flow: false, open: self.open.clone() };
        if admitted.open.fetch_add(1, Relaxed) >= self.capacity {
            admitted.share.counters.flows_refused.fetch_add(1, Relaxed);
            return Err(OverLimit::Capacity(self.capacity));
        }
        Ok(admitted)
    }

    /// Names and values, of all workloads together.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let shares = self.by_workload.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |count: fn(&Share) -> u64| shares.values().map(|share| count(share)).sum();
        vec![
            ("flows_refused", sum(|share| share.counters.flows_refused.load(Relaxed))),
            ("handshakes_refused", sum(|share| share.counters.handshakes_refused.load(Relaxed))),
            ("handshakes_delayed", sum(|share| share.counters.handshakes_delayed.load(Relaxed))),
            ("unproven_evicted", sum(|share| share.counters.unproven_evicted.load(Relaxed))),
            ("buffers_capped", sum(|share| share.buffers.capped())),
            ("buffered_bytes", sum(|share| share.buffers.leased() as u64)),
        ]
    }
}

impl Share {
    /// Waits until a handshake may begin, if that is within `patience`.
    ///
    /// # Errors
    /// If it is not.
    pub async fn begin_handshake(&self, patience: Duration) -> Result<(), OverLimit> {
        let delay = self.handshakes.take(patience).ok_or_else(|| {
            self.counters.handshakes_refused.fetch_add(1, Relaxed);
            OverLimit::Handshakes(self.handshakes.per_second())
        })?;
        if !delay.is_zero() {
            self.counters.handshakes_delayed.fetch_add(1, Relaxed);
            // Whoever goes away meanwhile keeps nobody else waiting.
            let reserved = Reserved(&self.handshakes);
            tokio::time::sleep(delay).await;
            std::mem::forget(reserved);
        }
        Ok(())
    }

    /// Takes a place for a client that has not proved who it is; never waits for one.
    #[must_use]
    pub fn unproven(&self, client: IpAddr) -> Unproven {
        self.unproven.enter(client)
    }

    /// Does for a client what it takes to prove who it is, for as long as others leave it the place.
    ///
    /// # Errors
    /// If they do not.
    pub async fn prove<T>(
        &self,
        place: &mut Unproven,
        work: impl Future<Output = T>,
    ) -> Result<T, OverLimit> {
        place.hold(work).await.ok_or_else(|| {
            self.counters.unproven_evicted.fetch_add(1, Relaxed);
            OverLimit::Unproven
        })
    }

    /// Waits for the turn of one step of a handshake. However many a workload has, some core is left to others.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.turns.acquire().await.ok()
    }
}

/// A handshake that has not begun.
struct Reserved<'r>(&'r Rate);

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(limits: Limits) -> Shares {
        Shares { capacity: 10, ..Shares::new(limits, 4) }
    }

    fn limits(flows: Option<usize>) -> Limits {
        Limits { flows, handshakes_per_second: 100, buffers: 1 << 20 }
    }

    #[test]
    fn a_workload_has_no_more_flows_than_it_may() {
        let shares = shares(limits(Some(2)));
        let first = shares.admit(1).unwrap();
        let _second = shares.admit(1).unwrap();
        assert_eq!(shares.admit(1).unwrap_err(), OverLimit::Flows(2));
        assert!(shares.admit(2).is_ok(), "another workload pays for it");
        drop(first);
        assert!(shares.admit(1).is_ok());
    }

    #[test]
    fn all_workloads_together_have_no_more_than_there_is() {
        let shares = shares(limits(None));
        let held: Vec<_> = (0..10).map(|workload| shares.admit(workload).unwrap()).collect();
        assert_eq!(shares.admit(99).unwrap_err(), OverLimit::Capacity(10));
        drop(held);
        // By default nobody can have all of it.
        let held: Vec<_> = std::iter::from_fn(|| shares.admit(1).ok()).collect();
        assert_eq!(held.len(), 5);
        let counters: HashMap<_, _> = shares.snapshot().into_iter().collect();
        assert_eq!(counters["flows_refused"], 2);
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_beyond_the_rate_wait_or_are_refused() {
        let shares = shares(limits(None));
        let share = shares.of(1);
        let start = tokio::time::Instant::now();
        for _ in 0..150 {
            share.begin_handshake(Duration::from_secs(1)).await.unwrap();
        }
        assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
        for _ in 0..20 {
            share.begin_handshake(Duration::from_secs(1)).await.unwrap();
        }
        let hurried = share.begin_handshake(Duration::ZERO).await;
        assert_eq!(hurried, Err(OverLimit::Handshakes(100)));
        shares.of(2).begin_handshake(Duration::ZERO).await.unwrap();
    }

    /// Or a host whose connections are cut as fast as it makes them could use up everybody's handshakes.
    #[tokio::test(start_paused = true)]
    async fn who_goes_away_while_waiting_for_a_handshake_keeps_nobody_waiting() {
        let shares = shares(limits(None));
        let share = shares.of(1);
        let patience = Duration::from_secs(10);
        for _ in 0..100 {
            share.begin_handshake(patience).await.unwrap();
        }
        for _ in 0..5_000 {
            let begun = share.begin_handshake(patience);
            tokio::time::timeout(Duration::ZERO, begun).await.unwrap_err();
        }
        let start = tokio::time::Instant::now();
        share.begin_handshake(patience).await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    }

    #[test]
    fn strangers_take_none_of_the_flows_that_a_workload_may_have() {
        let shares = shares(limits(Some(2)));
        let mut strangers: Vec<_> = (0..5).map(|_| shares.receive(1).unwrap()).collect();
        let _first = shares.admit(1).unwrap();
        strangers[0].count().unwrap();
        assert_eq!(strangers[1].count(), Err(OverLimit::Flows(2)));
        drop(strangers);
        assert!(shares.admit(1).is_ok());
    }
}
