//! Sockets whose packets a guard has dropped: left alone, their owners would wait for minutes.

use std::collections::HashSet;
use std::mem;
use std::time::{Duration, Instant};

use sheath_common::event::{Event, EventKind};

use super::Supervisor;
use crate::capture::namespace::existing;

/// Pause between two searches: whoever causes drops cannot keep the agent busy with them.
const PAUSE: Duration = Duration::from_millis(100);
/// Sockets remembered until the next search. The others run into their own time limits.
const REMEMBERED: usize = 1024;

/// Sockets that are to be aborted, by cookie.
#[derive(Debug, Default)]
pub struct Dropped {
    cookies: HashSet<u64>,
    searched: Option<Instant>,
}

impl Dropped {
    pub fn note(&mut self, event: &Event) {
        let is_outbound = EventKind::from_code(event.kind) == Some(EventKind::GuardDroppedOutbound);
        if is_outbound && event.cookie != 0 && self.cookies.len() < REMEMBERED {
            self.cookies.insert(event.cookie);
        }
    }

    pub fn is_due(&self) -> bool {
        !self.cookies.is_empty() && self.searched.is_none_or(|last| last.elapsed() >= PAUSE)
    }
}

impl Supervisor {
    /// Ends the connections whose packets were dropped: their owners see `ECONNABORTED` at once.
    pub(super) fn abort_dropped(&mut self) {
        let cookies = mem::take(&mut self.dropped.cookies);
        if cookies.is_empty() {
            return;
        }
        self.dropped.searched = Some(Instant::now());
        for served in self.namespaces.values() {
            if let Err(error) = existing::abort(&served.namespace, &cookies) {
                tracing::warn!(namespace = served.namespace.inode(), %error, "connections whose packets are dropped are not ended");
            }
        }
    }
}
