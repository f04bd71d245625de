//! How often somebody may do something: a bucket for each, which fills with time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What everybody may do.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// At once.
    pub burst: f64,
    /// From then on.
    pub per_second: f64,
}

/// The buckets of all who have done something of late. Whoever is not among them has a full one.
#[derive(Debug)]
pub struct Rates<K> {
    rate: Rate,
    /// Buckets that there may be: beyond that, whoever is new has to wait.
    most: usize,
    buckets: Mutex<Buckets<K>>,
}

#[derive(Debug)]
struct Buckets<K> {
    of: HashMap<K, Bucket>,
    /// Full ones are forgotten when there are so many.
    trim: usize,
}

/// What one may still do. Below zero it is in debt.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    seen: Instant,
}

impl Bucket {
    fn now(&self, rate: Rate, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.seen).as_secs_f64();
        (self.left + since * rate.per_second).min(rate.burst)
    }
}

const FEW: usize = 64;

impl<K: Clone + Eq + Hash> Rates<K> {
    #[must_use]
    pub fn new(rate: Rate, most: usize) -> Self {
        let buckets = Buckets { of: HashMap::new(), trim: FEW };
        Self { rate, most, buckets: Mutex::new(buckets) }
    }

    /// Takes one, if there is one.
    pub fn take(&self, who: &K) -> bool {
        let taken = self.change(who, |left| {
            let may = *left >= 1.0;
            *left -= f64::from(u8::from(may));
            Some(may)
        });
        taken.unwrap_or(false)
    }

    /// Takes so many, also if there are not so many: then it is in debt. Returns how long it has to wait until it is not.
    pub fn pay(&self, who: &K, cost: f64) -> Duration {
        let left = self.change(who, |left| {
            *left -= cost;
            Some(*left)
        });
        self.wait_for(left.unwrap_or(-1.0))
    }

    /// How long it has to wait until it is not in debt.
    #[must_use]
    pub fn debt(&self, who: &K) -> Duration {
        let now = Instant::now();
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        self.wait_for(buckets.of.get(who).map_or(0.0, |bucket| bucket.now(self.rate, now)))
    }

    fn wait_for(&self, left: f64) -> Duration {
        let seconds = (-left / self.rate.per_second).clamp(0.0, f64::from(u32::MAX));
        Duration::from_secs_f64(seconds)
    }

    /// `None` where there is no room for one more.
    fn change<T>(&self, who: &K, change: impl FnOnce(&mut f64) -> Option<T>) -> Option<T> {
        let (rate, now) = (self.rate, Instant::now());
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { of, trim } = &mut *buckets;
        if of.len() >= *trim && !of.contains_key(who) {
            of.retain(|_, bucket| bucket.now(rate, now) < rate.burst);
            *trim = (2 * of.len()).clamp(FEW, self.most);
            if of.len() >= self.most {
                return None;
            }
        }
        let full = Bucket { left: rate.burst, seen: now };
        let bucket = of.entry(who.clone()).or_insert(full);
        *bucket = Bucket { left: bucket.now(rate, now), seen: now };
        change(&mut bucket.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 100.0, per_second: 20.0 };

    fn taken(rates: &Rates<u32>, who: u32) -> usize {
        (0..2000).filter(|_| rates.take(&who)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_has_a_burst_and_then_a_rate() {
        let rates = Rates::new(RATE, 1000);
        assert_eq!(taken(&rates, 1), 100);
        assert_eq!(taken(&rates, 2), 100, "others have their own");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(taken(&rates, 1), 20);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(&rates, 1), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_in_debt_waits_until_it_is_paid() {
        let rates = Rates::new(RATE, 1000);
        assert_eq!(rates.pay(&1, 100.0), Duration::ZERO);
        assert_eq!(rates.pay(&1, 40.0), Duration::from_secs(2));
        assert_eq!(rates.debt(&1), Duration::from_secs(2));
        assert!(!rates.take(&1));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!((rates.debt(&1), taken(&rates, 1)), (Duration::ZERO, 20));
        assert_eq!(rates.debt(&2), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_no_more_buckets_than_may_be_and_full_ones_are_forgotten() {
        let rates = Rates::new(RATE, 200);
        let let_in = (0..1000).filter(|who| rates.take(who)).count();
        assert_eq!(let_in, 200);
        assert!(rates.take(&0), "whoever is known has its own still");
        assert!(!rates.take(&999));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(rates.take(&999), "the others are as if they had never been");
        assert!(rates.buckets.lock().unwrap().of.len() < 10);
    }
}
