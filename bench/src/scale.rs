//! How much is played.

use std::time::Duration;

/// How much of each load.
#[derive(Clone, Copy)]
pub struct Scale {
    /// How long a load lasts whose length can be chosen.
    pub duration: Duration,
    /// How many idle flows are looked at, one number after the other.
    pub idle: &'static [u32],
    /// Rounds in which idle flows are looked at: memory varies less than time.
    pub idle_rounds: u32,
    /// How long memory must be unchanged after all flows have closed, before it counts as stable.
    pub idle_still: Duration,
    /// Requests for redis, without pipelining.
    pub requests: u32,
}

impl Scale {
    pub const QUICK: Self = Self {
        duration: Duration::from_secs(1),
        idle: &[1_000],
        idle_rounds: 1,
        idle_still: Duration::from_secs(2),
        requests: 20_000,
    };
    pub const FULL: Self = Self {
        duration: Duration::from_secs(3),
        idle: &[1_000, 4_000],
        idle_rounds: 2,
        idle_still: Duration::from_secs(10),
        requests: 60_000,
    };

    /// In whole seconds, as most programs want it.
    pub fn seconds(&self) -> String {
        self.duration.as_secs().to_string()
    }
}
