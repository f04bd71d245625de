//! The access log: target `sheath::access`, one line for each flow when it is over, and one for each connection
//! that the kernel refused. The field names are stable.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::RefusedBy;
use crate::flow::{FlowRecord, Outcome, PeerId, Stage};
use crate::origin::Origin;

const TARGET: &str = "sheath::access";

/// How and where a flow ended.
#[derive(Debug)]
pub struct Ending {
    pub outcome: Outcome,
    pub stage: Stage,
    /// Empty if there is nothing to explain.
    pub reason: String,
    /// By what it was refused, if it was.
    pub refused: Option<RefusedBy>,
}

/// Logs a connection that the kernel refused in `connect()`, by a rule or for another reason.
pub fn log_denied_connect(
    workload: &str,
    destination: SocketAddr,
    pid: u32,
    rule: Option<Origin>,
    reason: &str,
) {
    let ending = Ending {
        outcome: Outcome::Denied,
        stage: Stage::Capture,
        reason: reason.to_owned(),
        // The supervisor counts it.
        refused: None,
    };
    let record = FlowRecord { rule, ..FlowRecord::denied(workload, destination, pid) };
    log_flow(&record, Duration::ZERO, &ending);
}

/// Logs a flow that is over.
pub(super) fn log_flow(record: &FlowRecord, duration: Duration, ending: &Ending) {
    // As text, so that what a peer calls itself is quoted.
    let id = |id: &Option<PeerId>| id.as_ref().map(ToString::to_string).unwrap_or_default();
    tracing::info!(
        target: TARGET,
        flow = %OrEmpty(&record.id),
        direction = record.direction.name(),
        workload = record.workload,
        local_id = id(&record.local_id),
        peer_id = id(&record.peer_id),
        source = %OrEmpty(&record.source),
        destination = %record.destination,
        service = record.reached.as_ref().map(|reached| &*reached.service).unwrap_or_default(),
        endpoint = %OrEmpty(&record.reached.as_ref().map(|reached| reached.endpoint)),
        rule = %OrEmpty(&record.rule),
        sent = record.transferred.sent,
        received = record.transferred.received,
        duration_ms = duration.as_millis() as u64,
        protection = record.protection.name(),
        tls_version = record.negotiated.version,
        tls_suite = record.negotiated.suite,
        tls_group = record.negotiated.group,
        reused = record.is_reused,
        outcome = ending.outcome.name(),
        stage = ending.stage.name(),
        reason = ending.reason,
        // Left out where it is not known.
        pid = record.pid,
    );
}

/// Empty where there is nothing.
struct OrEmpty<'a, T>(&'a Option<T>);

impl<T: fmt::Display> fmt::Display for OrEmpty<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |value| value.fmt(f))
    }
}

#[cfg(test)]
mod tests;
