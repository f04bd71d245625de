//! A limit to how often something may happen: the generic cell rate algorithm, with a second's worth as a burst.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// Nanoseconds whose places may be taken at once.
const BURST: u64 = 1_000_000_000;

#[derive(Debug)]
pub struct Rate {
    per_second: u32,
    start: Instant,
    /// When the rate would have been kept exactly, in nanoseconds after `start`.
    due: AtomicU64,
}

impl Rate {
    pub fn new(per_second: u32) -> Self {
        Self { per_second: per_second.max(1), start: Instant::now(), due: AtomicU64::new(0) }
    }

    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    fn interval(&self) -> u64 {
        BURST / u64::from(self.per_second)
    }

    /// Gives a place back that was taken and not used.
    pub fn give_back(&self) {
        self.due.fetch_sub(self.interval(), Relaxed);
    }

    /// Takes the next place, and returns how long to wait for it. `None`, and nothing is taken, if that is longer than
    /// `limit`.
    pub fn take(&self, limit: Duration) -> Option<Duration> {
        let interval = self.interval();
        let now = self.start.elapsed().as_nanos() as u64;
        let limit = limit.as_nanos() as u64;
        let mut delay = 0;
        let take = |due: u64| {
            let due = due.max(now) + interval;
            delay = due.saturating_sub(now + BURST);
            (delay <= limit).then_some(due)
        };
        self.due.fetch_update(Relaxed, Relaxed, take).ok()?;
        Some(Duration::from_nanos(delay))
    }
}
