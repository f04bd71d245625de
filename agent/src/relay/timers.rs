//! How long a flow may stand still.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How long nothing may move, until a flow is broken off. `None` is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// With both directions open.
    pub idle: Option<Duration>,
    /// With one direction ended.
    pub half_closed: Option<Duration>,
}

/// Watches one flow. Movement costs no more than to look at the clock: the timer finds out, when it goes off, whether it
/// should have been set later.
#[derive(Debug)]
pub struct Watch {
    patience: Patience,
    is_half_closed: bool,
    moved: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    pub fn new(patience: Patience) -> Self {
        Self { patience, is_half_closed: false, moved: Instant::now(), timer: None }
    }

    /// Something has moved.
    pub fn touch(&mut self) {
        self.moved = Instant::now();
    }

    /// One of the two directions has ended.
    pub fn half_close(&mut self) {
        if !self.is_half_closed {
            self.is_half_closed = true;
            self.touch();
            self.timer = None;
        }
    }

    /// Ready when nothing has moved for too long, with how long that is.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let limit =
            if self.is_half_closed { self.patience.half_closed } else { self.patience.idle };
        let Some(limit) = limit else {
            return Poll::Pending;
        };
        loop {
            let due = self.moved + limit;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(limit);
            }
            timer.as_mut().reset(due);
        }
    }
}
