//! What `sheath status` tells, as the agent puts it together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use sheath_common::workload::workload_id;

use crate::capture::{Maps, ProgramStatus, StatusView, WorkloadStatus};
use crate::control::{NameView, NameViews};
use crate::identity::{Held, Identities, Svid};
use crate::sessions::IdleSessions;
use crate::shares::Shares;
use crate::telemetry::{AgentCounters, rfc3339};
use crate::trust::VerifiedChains;

/// Where the parts of a status come from.
#[derive(Debug)]
pub struct AgentInfo {
    pub node: String,
    pub instance: String,
    pub started: Instant,
    pub counters: Arc<AgentCounters>,
    pub shares: Arc<Shares>,
    pub idle: Arc<IdleSessions>,
    pub identities: Arc<Identities>,
    pub names: NameViews,
    pub verified: Arc<VerifiedChains>,
    pub tables: Arc<Maps>,
}

/// The whole status. The names of its fields are stable.
#[derive(Debug, Serialize)]
pub struct Status {
    pub node: String,
    pub instance: String,
    pub version: &'static str,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub programs: Vec<ProgramStatus>,
    pub workloads: Vec<Workload>,
    /// DNS names of external peers.
    pub names: Vec<NameView>,
    /// Open now.
    pub flows: u64,
    /// Sessions kept for the next flow.
    pub idle_sessions: usize,
    pub counters: BTreeMap<&'static str, u64>,
    pub maps: MapEntries,
}

#[derive(Debug, Serialize)]
pub struct Workload {
    #[serde(flatten)]
    pub capture: WorkloadStatus,
    pub identity: IdentityStatus,
    pub svid: Option<SvidStatus>,
    pub flows: u64,
}

/// Where the workload's identity comes from, and what is wrong with that.
#[derive(Debug, Default, Serialize)]
pub struct IdentityStatus {
    /// `ca`, `files` or `spire`.
    pub source: &'static str,
    /// Empty if all is well.
    pub problem: String,
}

#[derive(Debug, Serialize)]
pub struct SvidStatus {
    pub serial: String,
    pub not_before: String,
    pub not_after: String,
}

/// Live entries of the maps that follow connections: none when none is alive.
#[derive(Debug, Default, Serialize)]
pub struct MapEntries {
    pub flows: usize,
    pub clients: usize,
    pub wires: usize,
}

impl AgentInfo {
    /// Adds what the rest of the agent knows to what capture sees.
    pub fn status(&self, view: StatusView) -> Status {
        let mut counters: BTreeMap<_, _> = self.counters.snapshot().into_iter().collect();
        counters.extend(self.shares.snapshot());
        counters.extend(self.verified.snapshot());
        counters.extend(self.tables.counters().unwrap_or_default());
        Status {
            node: self.node.clone(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            programs: view.programs,
            workloads: view.workloads.into_iter().map(|capture| self.workload(capture)).collect(),
            names: self.names.load().as_ref().clone(),
            flows: self.counters.flows(),
            idle_sessions: self.idle.count(),
            counters,
            maps: MapEntries::count(&self.tables),
        }
    }

    fn workload(&self, capture: WorkloadStatus) -> Workload {
        let id = workload_id(&capture.name);
        let held = self.identities.held(id);
        let credentials = held.as_ref().and_then(|held| held.credentials.as_ref());
        Workload {
            svid: credentials.map(|credentials| SvidStatus::new(&credentials.svid)),
            identity: held.as_deref().map(IdentityStatus::new).unwrap_or_default(),
            flows: self.counters.flows_of(id),
            capture,
        }
    }
}

impl IdentityStatus {
    fn new(held: &Held) -> Self {
        Self {
            source: held.source,
            problem: held.trouble().map(|trouble| trouble.to_string()).unwrap_or_default(),
        }
    }
}

impl SvidStatus {
    fn new(svid: &Svid) -> Self {
        Self {
            serial: svid.facts.serial.clone(),
            not_before: rfc3339(svid.facts.not_before),
            not_after: rfc3339(svid.facts.not_after),
        }
    }
}

impl MapEntries {
    fn count(tables: &Maps) -> Self {
        let count = |keys: std::io::Result<usize>| keys.unwrap_or_default();
        Self {
            flows: count(tables.flows.keys().map(|keys| keys.len())),
            clients: count(tables.clients.keys().map(|keys| keys.len())),
            wires: count(tables.wires.keys().map(|keys| keys.len())),
        }
    }
}
