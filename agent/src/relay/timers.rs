//! How long a flow may stand still.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long nothing may move before a flow is reset. `None` is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleTimeouts {
    /// With both directions open.
    pub idle: Option<Duration>,
    /// With one direction ended.
    pub half_closed: Option<Duration>,
    /// While a peer acknowledges nothing, although everything is sent to it again and again.
    pub dead_peer: Option<Duration>,
}

/// How long a flow stands still before it releases memory.
const REST: Duration = Duration::from_secs(1);

/// Watches one flow. When something moves, only the time is noted. The timer is not set anew: when it goes off, it finds out
/// whether it should have been later.
#[derive(Debug)]
pub struct Watch {
    timeouts: IdleTimeouts,
    is_half_closed: bool,
    is_resting: bool,
    moved: Instant,
    /// Since when the peer may owe an answer, and when to check whether it does.
    owes: Option<Owes>,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug)]
struct Owes {
    since: Instant,
    look: Instant,
}

/// A [`Watch`] for another process: how long ago everything was, as clocks do not go with it.
#[derive(Serialize, Deserialize)]
pub struct SavedWatch {
    is_half_closed: bool,
    is_resting: bool,
    moved_ago: Duration,
    /// How long the peer may have owed an answer, and how long until the next check.
    owes: Option<(Duration, Duration)>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing has moved for a while: memory can be released.
    Rest,
    /// The peer may have answered nothing for too long, which is so long: since it owes an answer, this much time has gone by.
    Look { limit: Duration, owing: Duration },
    /// Nothing has moved for this time, which is too long.
    End(Duration),
}

impl Watch {
    pub fn new(timeouts: IdleTimeouts) -> Self {
        let mut watch = Self {
            timeouts,
            is_half_closed: false,
            is_resting: false,
            moved: Instant::now(),
            owes: None,
            timer: None,
        };
        watch.expect_answer();
        watch
    }

    #[must_use]
    pub fn save(&self) -> SavedWatch {
        let now = Instant::now();
        let owes = self.owes.map(|owes| {
            let look = owes.look.saturating_duration_since(now);
            (now.saturating_duration_since(owes.since), look)
        });
        SavedWatch {
            is_half_closed: self.is_half_closed,
            is_resting: self.is_resting,
            moved_ago: now.saturating_duration_since(self.moved),
            owes,
        }
    }

    /// Goes on, by the time limits of this process. What lies further back than the clock goes is as old as the clock.
    #[must_use]
    pub fn restore(saved: &SavedWatch, timeouts: IdleTimeouts) -> Self {
        let now = Instant::now();
        let ago = |duration| now.checked_sub(duration).unwrap_or(now);
        let owes = saved
            .owes
            .zip(timeouts.dead_peer)
            .map(|((since, look), limit)| Owes { since: ago(since), look: now + look.min(limit) });
        Self {
            timeouts,
            is_half_closed: saved.is_half_closed,
            is_resting: saved.is_resting,
            moved: ago(saved.moved_ago),
            owes,
            timer: None,
        }
    }

    /// Something has moved.
    pub fn touch(&mut self) {
        self.moved = Instant::now();
        self.expect_answer();
        if std::mem::take(&mut self.is_resting) {
            // It may be set for much later.
            self.timer = None;
        }
    }

    /// The peer owes an answer from now on, unless it does already.
    fn expect_answer(&mut self) {
        if let (None, Some(limit)) = (self.owes, self.timeouts.dead_peer) {
            let look = self.moved + limit;
            self.owes = Some(Owes { since: self.moved, look });
        }
    }

    /// The peer owes nothing.
    pub fn is_answered(&mut self) {
        self.owes = None;
    }

    /// The peer still owes an answer; it is time to look again after so long.
    pub fn look_again(&mut self, after: Duration) {
        if let Some(owes) = &mut self.owes {
            owes.look = Instant::now() + after;
        }
    }

    /// One of the two directions has ended.
    pub fn half_close(&mut self) {
        if !self.is_half_closed {
            self.is_half_closed = true;
            self.touch();
            self.timer = None;
        }
    }

    /// Ready when nothing has moved for so long that something is due.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        let limit =
            if self.is_half_closed { self.timeouts.half_closed } else { self.timeouts.idle };
        loop {
            let rest = (!self.is_resting).then_some((self.moved + REST, Due::Rest));
            let end = limit.map(|limit| (self.moved + limit, Due::End(limit)));
            let look = self.owes.zip(self.timeouts.dead_peer).map(|(owes, limit)| {
                (owes.look, Due::Look { limit, owing: owes.look - owes.since })
            });
            let all = [rest, look, end].into_iter().flatten();
            let Some((when, due)) = all.min_by_key(|(when, _)| *when) else {
                self.timer = None;
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(when)));
            if timer.deadline() > when {
                timer.as_mut().reset(when);
            }
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= when {
                self.is_resting |= due == Due::Rest;
                return Poll::Ready(due);
            }
            timer.as_mut().reset(when);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    async fn next(watch: &mut Watch) -> (Due, Duration) {
        let start = Instant::now();
        let due = poll_fn(|cx| watch.poll(cx)).await;
        // The clock of timers goes in milliseconds.
        (due, Duration::from_millis(start.elapsed().as_millis() as u64 / 10 * 10))
    }

    #[tokio::test(start_paused = true)]
    async fn rest_comes_once_after_each_movement_and_then_the_end() {
        let mut watch = Watch::new(IdleTimeouts { idle: Some(HOUR), ..IdleTimeouts::default() });
        assert_eq!(next(&mut watch).await, (Due::Rest, REST));
        watch.touch();
        tokio::time::sleep(REST / 2).await;
        watch.touch();
        assert_eq!(next(&mut watch).await, (Due::Rest, REST));
        assert_eq!(next(&mut watch).await, (Due::End(HOUR), HOUR - REST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_that_may_stand_still_for_ever_rests() {
        let mut watch = Watch::new(IdleTimeouts::default());
        assert_eq!(next(&mut watch).await, (Due::Rest, REST));
        assert!(tokio::time::timeout(HOUR, next(&mut watch)).await.is_err());
        watch.touch();
        assert_eq!(next(&mut watch).await, (Due::Rest, REST));
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_due_before_does_not_wait_for_rest() {
        let short = REST / 4;
        let mut watch =
            Watch::new(IdleTimeouts { half_closed: Some(short), ..IdleTimeouts::default() });
        watch.half_close();
        assert_eq!(next(&mut watch).await, (Due::End(short), short));
    }

    #[tokio::test(start_paused = true)]
    async fn whether_a_peer_owes_an_answer_is_looked_at_once_it_may_have_owed_it_for_too_long() {
        let limit = 20 * REST;
        let timeouts = IdleTimeouts { dead_peer: Some(limit), ..IdleTimeouts::default() };
        let look = |owing| Due::Look { limit, owing };
        let mut watch = Watch::new(timeouts);
        assert_eq!(next(&mut watch).await, (Due::Rest, REST));
        // What is sent later does not make it owe for less time.
        tokio::time::sleep(REST / 2).await;
        watch.touch();
        assert_eq!(next(&mut watch).await, (Due::Rest, REST));
        assert_eq!(next(&mut watch).await.0, look(limit));
        watch.look_again(REST);
        assert_eq!(next(&mut watch).await, (look(limit + REST), REST));
        // It has answered: there is nothing to wait for until more is sent.
        watch.is_answered();
        assert!(tokio::time::timeout(HOUR, next(&mut watch)).await.is_err());
        watch.touch();
        assert_eq!(next(&mut watch).await, (Due::Rest, REST));
        watch.is_answered();
        assert!(tokio::time::timeout(HOUR, next(&mut watch)).await.is_err());
    }
}
