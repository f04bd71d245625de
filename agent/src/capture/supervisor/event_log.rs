//! Logs kernel events. Their number in each interval is limited, so that an application cannot fill the log.

use std::net::SocketAddr;

use sheath_common::event::{Event, EventKind};

use crate::capture::kernel::events::{denial_reason, drop_reason};
use crate::steering::Steering;
use crate::telemetry::log_denied_connect;

/// Refused connections and dropped packets logged in one interval; the rest are only counted, in the kernel.
const LOGGED: u32 = 100;

/// Logs events.
#[derive(Debug, Default)]
pub struct EventLog {
    logged: u32,
}

impl EventLog {
    /// Begins another interval.
    pub fn begin_interval(&mut self) {
        self.logged = 0;
    }

    pub fn log(&mut self, event: &Event, policy: &dyn Steering) {
        let kind = EventKind::from_code(event.kind);
        let name = policy.workload_name(event.workload).unwrap_or_default();
        let [source, destination] = [event.source, event.destination].map(SocketAddr::from);
        match kind {
            Some(EventKind::ConnectDenied) => {
                if self.has_room() {
                    let rule = policy.rule_of_denial(event.workload, destination, event.detail);
                    let reason = policy.why_denied(destination, event.detail);
                    let reason = reason.as_deref().unwrap_or_else(|| denial_reason(event.detail));
                    log_denied_connect(name, destination, event.pid, rule, reason);
                }
            }
            Some(EventKind::GuardDroppedOutbound | EventKind::GuardDroppedInbound) => {
                if self.has_room() {
                    let reason = drop_reason(event.detail);
                    tracing::warn!(workload = name, %source, %destination, reason, "the guard dropped a packet");
                }
            }
            Some(EventKind::ProbeUnmatched) => {
                if self.has_room() {
                    let reason = "it came to a port of the pod's probes from this node, but not by the kubelet's connection: it is treated like \
                                  any other caller";
                    tracing::warn!(workload = name, %source, %destination, reason, "no probe of the kubelet");
                }
            }
            _ => tracing::debug!(workload = name, cgroup = event.cgroup, ?kind, "kernel event"),
        }
    }

    fn has_room(&mut self) -> bool {
        self.logged = self.logged.saturating_add(1);
        self.logged <= LOGGED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_logged_in_each_interval() {
        let mut log = EventLog::default();
        let mut logged = || (0..3 * LOGGED).filter(|_| log.has_room()).count();
        assert_eq!(logged(), LOGGED as usize);
        assert_eq!(logged(), 0);
        log.begin_interval();
        assert!(log.has_room());
    }
}
