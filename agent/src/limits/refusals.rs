//! Counters of what quotas refuse, or make wait.

use std::ops::AddAssign;

use crate::metrics::Counter;

/// What one quota has refused, or made wait.
#[derive(Debug, Default)]
pub struct RefusalCounters {
    pub flows: Counter,
    pub handshakes: Counter,
    pub handshakes_delayed: Counter,
    pub unproven_evicted: Counter,
}

/// The values of [`RefusalCounters`] at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefusalCounts {
    pub flows: u64,
    pub handshakes: u64,
    pub handshakes_delayed: u64,
    pub unproven_evicted: u64,
    pub buffers_capped: u64,
}

/// Reads one of the values.
pub type Count = fn(&RefusalCounts) -> u64;

/// Names, help texts, and what is counted.
pub const COUNTERS: [(&str, &str, Count); 5] = [
    ("flows_refused", "Connections refused for a limit on flows.", |refused| refused.flows),
    (
        "handshakes_refused",
        "Handshakes refused because they would have waited too long for the limit on their rate.",
        |refused| refused.handshakes,
    ),
    ("handshakes_delayed", "Handshakes that waited for the limit on their rate.", |refused| {
        refused.handshakes_delayed
    }),
    (
        "unproven_evicted",
        "Clients reset before they proved who they are, because others needed their slots.",
        |refused| refused.unproven_evicted,
    ),
    (
        "buffers_capped",
        "Buffers that were smaller than wanted, for the limit on buffered bytes.",
        |refused| refused.buffers_capped,
    ),
];

impl AddAssign for RefusalCounts {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.handshakes += other.handshakes;
        self.handshakes_delayed += other.handshakes_delayed;
        self.unproven_evicted += other.unproven_evicted;
        self.buffers_capped += other.buffers_capped;
    }
}
