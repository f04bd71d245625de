//! Short connections without pause, for what happens to traffic while something else happens.

use std::net::SocketAddr;
use std::time::Instant;

use crate::place::Place;
use crate::probe::Probe;
use crate::script::{Event, Job, Try, errno_name};
use crate::wait::{self, GENEROUS};

/// A process that makes one connection after the other, each sending a text and expecting it back.
pub struct Hammer(Probe);

impl Hammer {
    pub fn start(place: &Place, to: SocketAddr, text: &str) -> Self {
        Self(Probe::start(place, &Job::Hammer { to, text: text.to_owned() }))
    }

    /// The tries since the last call, up to and including the one that makes them enough.
    #[track_caller]
    pub fn collect(&mut self, what: &str, enough: impl Fn(&[Try]) -> bool) -> Vec<Try> {
        let mut tries = Vec::new();
        let deadline = Instant::now() + wait::patient(2 * GENEROUS);
        while !enough(&tries) {
            assert!(Instant::now() < deadline, "{what}: not seen; last saw {:?}", tries.last());
            tries.push(self.0.expect(what, GENEROUS, |event| match event {
                Event::Try(attempt) => Some(attempt.clone()),
                _ => None,
            }));
        }
        tries
    }

    /// Waits for `count` successes.
    #[track_caller]
    pub fn succeed(&mut self, count: usize) -> Vec<Try> {
        let successes = |tries: &[Try]| tries.iter().filter(|t| t.error.is_none()).count();
        self.collect("successful connections", |tries| successes(tries) >= count)
    }

    /// Waits for `count` failures in a row with this errno and returns those: what happens once a
    /// change has reached every connection that was under way.
    #[track_caller]
    pub fn fail(&mut self, count: usize, errno: i32) -> Vec<Try> {
        let failures =
            |tries: &[Try]| tries.iter().rev().take_while(|t| t.error == Some(errno)).count();
        let what = format!("connections that fail with {}", errno_name(Some(errno)));
        let mut tries = self.collect(&what, |tries| failures(tries) >= count);
        tries.split_off(tries.len() - count)
    }

    /// Every try since the last call, without waiting for more.
    pub fn so_far(&mut self) -> Vec<Try> {
        let tries = self.0.events_so_far().into_iter().filter_map(|event| match event {
            Event::Try(attempt) => Some(attempt),
            _ => None,
        });
        tries.collect()
    }
}
