//! The access log: target `sheath::access`, one line for each flow when it is over, and one for each connection
//! that the kernel refused. The field names are stable.

use std::net::SocketAddr;

use crate::flow::{Direction, FlowRecord, Outcome, Stage};
use crate::trust::PeerId;

const TARGET: &str = "sheath::access";

/// How and where a flow ended.
#[derive(Debug)]
pub struct Ending {
    pub outcome: Outcome,
    pub stage: Stage,
    /// Empty if there is nothing to explain.
    pub reason: String,
}

pub fn log_flow(record: &FlowRecord, ending: &Ending) {
    let id = |id: &Option<PeerId>| id.as_ref().map_or_else(String::new, ToString::to_string);
    tracing::info!(
        target: TARGET,
        flow = %record.id,
        direction = record.direction.name(),
        workload = record.workload,
        local_id = id(&record.local_id),
        peer_id = id(&record.peer_id),
        source = %record.source,
        destination = %record.destination,
        sent = record.transferred.sent,
        received = record.transferred.received,
        duration_ms = record.started.elapsed().as_millis() as u64,
        protection = record.protection.name(),
        tls_version = record.negotiated.version,
        tls_suite = record.negotiated.suite,
        tls_group = record.negotiated.group,
        reused = record.is_reused,
        outcome = ending.outcome.name(),
        stage = ending.stage.name(),
        reason = ending.reason,
    );
}

/// A connection that was refused before it was one: it has neither an id nor a source port.
pub fn log_denied_connect(workload: &str, destination: SocketAddr, pid: u32, reason: &str) {
    tracing::info!(
        target: TARGET,
        flow = "",
        direction = Direction::Outbound.name(),
        workload,
        local_id = "",
        peer_id = "",
        source = "",
        destination = %destination,
        sent = 0,
        received = 0,
        duration_ms = 0,
        protection = "none",
        tls_version = "",
        tls_suite = "",
        tls_group = "",
        reused = false,
        outcome = Outcome::Denied.name(),
        stage = Stage::Capture.name(),
        reason,
        pid,
    );
}
