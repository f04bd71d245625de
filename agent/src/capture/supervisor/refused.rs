//! The connections of each workload that the kernel has refused: how many, and the last of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use serde::Serialize;
use sheath_common::event::{Event, EventKind};
use sheath_common::workload::{NO_WORKLOAD, WorkloadId};

use crate::capture::kernel::events::{denial_reason, drop_reason};
use crate::telemetry::rfc3339;

/// Workloads of which this is remembered.
const REMEMBERED: usize = 16_384;

/// By workload.
#[derive(Debug, Default)]
pub struct Refused(HashMap<WorkloadId, RefusedConnections>);

/// Of one workload, since the agent has been running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedConnections {
    pub count: u64,
    /// Where the last one was to go.
    pub destination: SocketAddr,
    /// Why it was refused.
    pub reason: &'static str,
    /// When (RFC 3339).
    pub last: String,
    #[serde(skip)]
    pub at: SystemTime,
}

impl Refused {
    /// Notes an event, if it tells of a connection that a workload was refused.
    pub fn note(&mut self, event: &Event) {
        let reason = match EventKind::from_code(event.kind) {
            Some(EventKind::ConnectDenied) => denial_reason(event.detail),
            Some(EventKind::GuardDroppedOutbound) => drop_reason(event.detail),
            _ => return,
        };
        let is_known = self.0.contains_key(&event.workload);
        if event.workload == NO_WORKLOAD || !is_known && self.0.len() >= REMEMBERED {
            return;
        }
        let at = SystemTime::now();
        let count = self.0.get(&event.workload).map_or(0, |before| before.count) + 1;
        let destination = event.destination.into();
        let now = RefusedConnections { count, destination, reason, last: rfc3339(at), at };
        self.0.insert(event.workload, now);
    }

    #[must_use]
    pub fn of(&self, workload: WorkloadId) -> Option<&RefusedConnections> {
        self.0.get(&workload)
    }

    /// Forgets all workloads but these.
    pub fn retain(&mut self, is_living: impl Fn(WorkloadId) -> bool) {
        self.0.retain(|workload, _| is_living(*workload));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheath_common::net::{Address, Endpoint};
    use sheath_common::verdict::Denial;

    fn event(kind: EventKind, workload: WorkloadId, port: u32) -> Event {
        let destination = Endpoint { address: Address::default(), port };
        let detail = Denial::UnknownDestination as u32;
        Event { kind: kind as u32, detail, workload, destination, ..Event::default() }
    }

    #[test]
    fn the_last_one_is_remembered_and_all_are_counted() {
        let mut refused = Refused::default();
        for port in 1..=3 {
            refused.note(&event(EventKind::ConnectDenied, 7, port));
        }
        refused.note(&event(EventKind::ConnectDenied, NO_WORKLOAD, 9));
        refused.note(&event(EventKind::GuardDroppedInbound, 8, 9));
        let of_7 = refused.of(7).unwrap();
        assert_eq!((of_7.count, of_7.destination.port()), (3, 3));
        assert_eq!(refused.of(8), None);
        refused.retain(|workload| workload != 7);
        assert_eq!(refused.of(7), None);
    }
}
