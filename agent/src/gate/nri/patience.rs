//! How long a sandbox may be waited for.
//!
//! A runtime holds one lock while any of its plugins is asked about anything (containerd/nri, `pkg/adaptation/adaptation.go`):
//! while the gate waits for one pod, no other pod of the node starts or stops. So each may be waited for as long as the
//! runtime's time limit allows, but all of them together only a part of the time. Otherwise a few pods that come back
//! every ten seconds, and cannot get an identity, would keep the node to themselves.

use std::time::{Duration, Instant};

/// Part of the time that may be spent with waiting in vain, once what has been saved up is used up.
const SHARE: f64 = 0.25;

/// What is always waited: long enough for the agent to serve a namespace that it has just been told of.
const LEAST: Duration = Duration::from_millis(150);

/// An account of time. Only waiting in vain is charged, and for several pods at a time once: the runtime then has no such lock.
#[derive(Debug)]
pub struct Patience {
    most: Duration,
    left: Duration,
    at: Instant,
    charged_until: Instant,
}

impl Patience {
    /// With enough to wait for `most`, which is also the most that can be saved up.
    #[must_use]
    pub fn new(most: Duration, now: Instant) -> Self {
        Self { most, left: most, at: now, charged_until: now }
    }

    /// How long a pod may be waited for that is asked about now.
    pub fn allows(&mut self, now: Instant) -> Duration {
        self.save_up(now);
        self.left.max(LEAST).min(self.most)
    }

    /// A pod has been waited for in vain.
    pub fn charge(&mut self, begun: Instant, now: Instant) {
        self.save_up(now);
        let cost = now.saturating_duration_since(begun.max(self.charged_until));
        self.left = self.left.saturating_sub(cost);
        self.charged_until = now;
    }

    fn save_up(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        self.left = (self.left + passed.mul_f64(SHARE)).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(1500);

    /// Waits for one pod in vain.
    fn in_vain(patience: &mut Patience, now: &mut Instant) -> Duration {
        let begun = *now;
        *now += patience.allows(begun);
        patience.charge(begun, *now);
        *now - begun
    }

    #[test]
    fn the_first_is_waited_for_and_two_hundred_do_not_stop_the_node() {
        let mut now = Instant::now();
        let mut patience = Patience::new(MOST, now);
        assert_eq!(in_vain(&mut patience, &mut now), MOST);
        let others: Duration = (0..199).map(|_| in_vain(&mut patience, &mut now)).sum();
        assert_eq!(others, 199 * LEAST);
    }

    #[test]
    fn what_was_used_up_comes_back_with_time() {
        let mut now = Instant::now();
        let mut patience = Patience::new(MOST, now);
        in_vain(&mut patience, &mut now);
        assert_eq!(patience.allows(now), LEAST);
        now += Duration::from_secs(2);
        assert_eq!(patience.allows(now), Duration::from_millis(500));
        now += Duration::from_secs(3600);
        assert_eq!(patience.allows(now), MOST);
    }

    #[test]
    fn waiting_for_many_at_a_time_counts_once() {
        let begun = Instant::now();
        let mut patience = Patience::new(MOST, begun);
        assert!((0..200).all(|_| patience.allows(begun) == MOST));
        let now = begun + Duration::from_millis(1000);
        (0..200).for_each(|_| patience.charge(begun, now));
        assert_eq!(patience.allows(now), Duration::from_millis(500));
    }

    #[test]
    fn what_was_not_in_vain_costs_nothing() {
        let mut now = Instant::now();
        let mut patience = Patience::new(MOST, now);
        for _ in 0..200 {
            assert_eq!(patience.allows(now), MOST);
            now += Duration::from_millis(40);
        }
    }
}
