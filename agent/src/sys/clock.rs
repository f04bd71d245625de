//! Waiting for an instant, and for a time of day: the clock may be set meanwhile, and the machine may sleep.

use std::time::{Duration, Instant, SystemTime};

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(20);
/// The same, where it may be set back at any time and that must not go unnoticed.
const SHORT_LOOK: Duration = Duration::from_secs(1);

/// Waits for a moment; for ever, if there is none.
pub async fn reach(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits until the clock says `time`, or something later.
pub async fn sleep_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

/// Waits until `is_it` is true of the clock's time. The clock may go back as well as on.
pub async fn reaches(is_it: impl Fn(SystemTime) -> bool) {
    while !is_it(SystemTime::now()) {
        tokio::time::sleep(SHORT_LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_is_waited_for_and_what_is_over_is_not() {
        let time = SystemTime::now() + Duration::from_millis(50);
        sleep_until(time).await;
        assert!(SystemTime::now() >= time);
        sleep_until(time).await;
    }
}
