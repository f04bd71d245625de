//! Growing, jittered pauses between retries.

use std::time::Duration;

use rustls::crypto::SecureRandom;

/// First pause and longest pause.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles from one failure to the next.
#[derive(Debug)]
pub struct Backoff {
    random: &'static dyn SecureRandom,
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    #[must_use]
    pub fn new(random: &'static dyn SecureRandom) -> Self {
        Self::between(random, FIRST, LONGEST)
    }

    /// With other bounds.
    #[must_use]
    pub fn between(random: &'static dyn SecureRandom, first: Duration, longest: Duration) -> Self {
        Self { random, first, longest, next: first }
    }

    /// Between half of it and all of it.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(0.5 + jitter(self.random) / 2.0);
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Between 0 and 1.
pub fn jitter(random: &dyn SecureRandom) -> f64 {
    let mut bytes = [0x80; 2];
    // Without randomness, take the middle.
    let _ = random.fill(&mut bytes);
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_again_after_a_success() {
        let random = crate::peer::crypto_provider().secure_random;
        let mut backoff = Backoff::new(random);
        let first = backoff.pause();
        assert!(FIRST / 2 <= first && first <= FIRST, "{first:?}");
        let last = (0..20).map(|_| backoff.pause()).last().unwrap();
        assert!(LONGEST / 2 <= last && last <= LONGEST, "{last:?}");
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
