//! Sockets whose packets a guard has dropped. Their connections are ended: otherwise their owners would wait for minutes.

use std::collections::HashSet;
use std::mem;
use std::time::{Duration, Instant};

use sheath_common::event::{Event, EventKind};

/// Pause between two searches, so that dropped packets cannot keep the agent busy.
const PAUSE: Duration = Duration::from_millis(100);
/// Sockets remembered until the next search. The others run into their own time limits.
const REMEMBERED: usize = 1024;

/// Sockets that are to be aborted, by cookie.
#[derive(Debug, Default)]
pub struct DroppedSockets {
    cookies: HashSet<u64>,
    taken: Option<Instant>,
}

impl DroppedSockets {
    /// Remembers the socket of an event that tells of a dropped packet.
    pub fn note(&mut self, event: &Event) {
        let is_outbound = EventKind::from_code(event.kind) == Some(EventKind::GuardDroppedOutbound);
        if is_outbound && event.cookie != 0 && self.cookies.len() < REMEMBERED {
            self.cookies.insert(event.cookie);
        }
    }

    /// True if there are any, and the last search was not just now.
    pub fn is_due(&self) -> bool {
        !self.cookies.is_empty() && self.taken.is_none_or(|last| last.elapsed() >= PAUSE)
    }

    /// Takes those that are remembered, if there are any, to search for them.
    pub fn take(&mut self) -> Option<HashSet<u64>> {
        if self.cookies.is_empty() {
            return None;
        }
        self.taken = Some(Instant::now());
        Some(mem::take(&mut self.cookies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, cookie: u64) -> Event {
        Event { kind: kind as u32, cookie, ..Event::default() }
    }

    #[test]
    fn outbound_drops_with_a_socket_are_searched_for_and_not_at_once_again() {
        let mut dropped = DroppedSockets::default();
        dropped.note(&event(EventKind::GuardDroppedInbound, 1));
        dropped.note(&event(EventKind::GuardDroppedOutbound, 0));
        assert!(!dropped.is_due() && dropped.take().is_none());
        dropped.note(&event(EventKind::GuardDroppedOutbound, 2));
        assert!(dropped.is_due());
        assert_eq!(dropped.take(), Some(HashSet::from([2])));
        dropped.note(&event(EventKind::GuardDroppedOutbound, 3));
        assert!(!dropped.is_due(), "the last search was just now");
        assert_eq!(dropped.take(), Some(HashSet::from([3])));
    }

    #[test]
    fn not_more_are_remembered_than_there_is_room_for() {
        let mut dropped = DroppedSockets::default();
        for cookie in 1..=2 * REMEMBERED as u64 {
            dropped.note(&event(EventKind::GuardDroppedOutbound, cookie));
        }
        assert_eq!(dropped.take().unwrap().len(), REMEMBERED);
    }
}
