//! The numbers that owners keep and count with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::snapshot::{Bucket, Distribution};

/// Counts what happens. It never goes down.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of a histogram's buckets, in ascending order. The bucket for everything above the last is not among them.
#[derive(Clone, Copy, Debug)]
pub struct Bounds(&'static [Duration]);

impl Bounds {
    /// For constants: the compiler refuses bounds that do not ascend.
    #[must_use]
    pub const fn new(bounds: &'static [Duration]) -> Self {
        let mut index = 1;
        while index < bounds.len() {
            assert!(bounds[index - 1].as_nanos() < bounds[index].as_nanos(), "bounds must ascend");
            index += 1;
        }
        Self(bounds)
    }
}

/// Counts how long things take.
#[derive(Debug)]
pub struct Histogram {
    bounds: Bounds,
    /// One for each bound, and one for what is longer than the last.
    buckets: Box<[AtomicU64]>,
    /// In microseconds: enough for half a million years of flows.
    sum: AtomicU64,
}

impl Histogram {
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let buckets = (0..=bounds.0.len()).map(|_| AtomicU64::default()).collect();
        Self { bounds, buckets, sum: AtomicU64::default() }
    }

    pub fn observe(&self, duration: Duration) {
        let bucket = self.bounds.0.partition_point(|bound| *bound < duration);
        self.sum.fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
        // After the sum, which is read last: it covers at least what is counted.
        self.buckets[bucket].fetch_add(1, Ordering::Release);
    }

    #[must_use]
    pub fn read(&self) -> Distribution {
        let mut count = 0;
        let mut cumulative = self.buckets.iter().map(|bucket| {
            count += bucket.load(Ordering::Acquire);
            count
        });
        let buckets = self.bounds.0.iter().zip(&mut cumulative);
        let buckets = buckets.map(|(&le, count)| Bucket { le, count }).collect();
        let count = cumulative.next().unwrap_or_default();
        let sum = Duration::from_micros(self.sum.load(Ordering::Relaxed));
        Distribution { count, sum, buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds::new(&[
        Duration::from_millis(1),
        Duration::from_millis(10),
        Duration::from_millis(100),
    ]);

    fn counts(distribution: &Distribution) -> Vec<u64> {
        distribution.buckets.iter().map(|bucket| bucket.count).collect()
    }

    #[test]
    fn a_counter_counts_and_a_gauge_follows() {
        let (counter, gauge) = (Counter::default(), Gauge::default());
        for _ in 0..3 {
            counter.increment();
            gauge.increment();
        }
        gauge.decrement();
        assert_eq!((counter.get(), gauge.get()), (3, 2));
    }

    #[test]
    fn buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(BOUNDS);
        for micros in [0, 1_000, 1_001, 10_000, 99_999, 100_001, 5_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!(counts(&read), [2, 4, 5]);
        assert_eq!(read.count, 7, "with what is longer than the last bound");
        assert_eq!(read.sum, Duration::from_micros(5_212_001));
    }

    /// A reader in the middle of it sees a histogram that could have been.
    #[test]
    fn a_histogram_is_consistent_while_it_is_counted_with() {
        const EACH: u64 = 20_000;
        let histogram = Histogram::new(BOUNDS);
        std::thread::scope(|scope| {
            let counting: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for number in 0..EACH {
                            histogram.observe(Duration::from_millis(number % 200));
                        }
                    })
                })
                .collect();
            while !counting.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                let read = histogram.read();
                let counts = counts(&read);
                assert!(counts.is_sorted() && counts.iter().all(|count| *count <= read.count));
                // The sum covers what is counted: here, what is longer than the last bound.
                let long = read.count - counts[2];
                assert!(read.sum >= Duration::from_millis(100) * long as u32, "{read:?}");
            }
        });
        let read = histogram.read();
        assert_eq!(read.count, 2 * EACH);
        assert_eq!(counts(&read), [400, 2_200, 20_200]);
    }
}
