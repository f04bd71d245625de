//! The document that `sheath status` shows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::future::BoxFuture;
use serde::Serialize;
use sheath_common::workload::WorkloadId;

use crate::capture::{PodsStatus, ProgramStatus, StatusView, WorkloadStatus};
use crate::control::{DirectoryView, DirectoryViews, FoundViews, NameView, ProblemView};
use crate::credentials::{Identities, IdentityState};
use crate::gate::{Gate, GateKind, GateStatus, InForce};
use crate::handover::TakeOver;
use crate::identity::Svid;
use crate::metrics::{Kind, Registry, Snapshot};
use crate::sys::own_program::OwnProgram;
use crate::telemetry::{AgentCounters, rfc3339};

/// Where the parts of a status come from.
#[derive(Debug)]
pub struct AgentInfo {
    pub node: String,
    pub instance: String,
    pub started: Instant,
    pub identities: Arc<Identities>,
    pub found: FoundViews,
    /// Who asks before a pod starts, where that is wanted.
    pub gate: Option<Gate>,
    /// Who is where in the cluster, if there is a controller.
    pub directory: Option<DirectoryViews>,
    pub counters: Arc<AgentCounters>,
    pub metrics: Registry,
    pub threads: Threads,
    /// The agent that this one has taken over from.
    pub taken_over: Option<Arc<TakeOver>>,
    /// This agent hands over to a successor.
    pub handing_over: AtomicBool,
    /// What this agent is replaced by, if it is asked to be.
    pub program: OwnProgram,
    /// Somebody is told (sd_notify(3)) which process is the agent.
    pub has_service_manager: bool,
}

/// The threads that carry flows, to be asked whether they still do.
#[derive(Clone)]
pub struct Threads(Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>);

impl Threads {
    pub fn new(ask: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Completes when every one has answered.
    pub async fn all_answer(&self) {
        (self.0)().await;
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Threads")
    }
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
    /// The pods of a kubelet, if there is one.
    pub pods: Option<PodsStatus>,
    /// Who asks before a pod starts.
    pub gate: Option<GateView>,
    /// The controller's directory, if there is a controller.
    pub directory: Option<DirectoryView>,
    /// The agent that this one has taken over from, if it has.
    pub taken_over: Option<TakenOver>,
    /// DNS names of external peers.
    pub names: Vec<NameView>,
    /// What discoveries cannot find out.
    pub problems: Vec<ProblemView>,
    /// Open now.
    pub flows: u64,
    /// Sessions kept for the next flow.
    pub idle_sessions: u64,
    /// The totals of counters and gauges that have no field of their own.
    pub counters: BTreeMap<&'static str, u64>,
    pub maps: MapEntries,
    /// Everything that is counted, with labels and help texts.
    pub metrics: Snapshot,
}

#[derive(Debug, Serialize)]
pub struct Workload {
    #[serde(flatten)]
    pub capture: WorkloadStatus,
    pub identity: IdentityStatus,
    pub svid: Option<SvidStatus>,
    pub flows: u64,
}

/// The gate, as it is.
#[derive(Debug, Serialize)]
pub struct GateView {
    pub wanted: GateKind,
    pub in_force: InForce,
    /// Name and version, where it has connected by NRI.
    pub runtime: String,
    pub connected_since: String,
    /// The plugin of CNI is in the node's network: it has pods wait also while no agent runs.
    pub plugin_installed: bool,
    /// Sandboxes that may start, and that may not: by NRI and CNI. Where both ask, each is counted twice.
    pub admitted: u64,
    pub not_admitted: u64,
    /// Why the runtime does not ask by NRI, or the plugin of CNI is not installed; empty if neither is so.
    pub problem: String,
}

impl GateView {
    fn new(status: &GateStatus) -> Self {
        let GateStatus { wanted, in_force, nri, cni } = status;
        let of_nri = nri.last_error.clone().filter(|_| nri.connected_since.is_none());
        let problem = cni.problem.clone().or(of_nri);
        Self {
            wanted: *wanted,
            in_force: *in_force,
            runtime: nri.runtime.clone().unwrap_or_default(),
            connected_since: nri.connected_since.map(rfc3339).unwrap_or_default(),
            plugin_installed: cni.installed,
            admitted: nri.admitted + cni.admitted,
            not_admitted: nri.not_admitted + cni.not_admitted,
            problem: problem.unwrap_or_default(),
        }
    }
}

/// A hand-over to this agent.
#[derive(Debug, Serialize)]
pub struct TakenOver {
    /// When new connections began to come to this agent.
    pub at: String,
    /// The agent before: its process and its version.
    pub pid: i32,
    pub version: String,
    /// Flows that it has handed over, and flows that it has offered and carries on itself.
    pub flows_taken: u64,
    pub flows_refused: u64,
    /// It has ended, and so has all that it carried.
    pub has_ended: bool,
}

impl TakenOver {
    fn new(take_over: &TakeOver) -> Self {
        Self {
            at: rfc3339(take_over.at),
            pid: take_over.pid,
            version: take_over.version.clone(),
            flows_taken: take_over.taken.get(),
            flows_refused: take_over.refused.get(),
            has_ended: take_over.has_ended(),
        }
    }
}

/// Where the workload's identity comes from, and what is wrong with it.
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

/// Entries of the maps that follow connections: none when no connection is open.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct MapEntries {
    pub flows: u64,
    pub clients: u64,
    pub wires: u64,
}

/// Metrics that have a field of their own in a status.
const FLOWS: &str = "flows";
const IDLE_SESSIONS: &str = "idle_sessions";
const MAP_ENTRIES: &str = "map_entries";

impl AgentInfo {
    /// From now on a successor is to be asked, and until it answers only whether this agent lives.
    pub fn set_handed_over(&self) {
        self.handing_over.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn has_handed_over(&self) -> bool {
        self.handing_over.load(Ordering::Relaxed)
    }

    /// The process that this agent has taken over from.
    pub(super) fn predecessor(&self) -> Option<i32> {
        self.taken_over.as_ref().map(|from| from.pid)
    }

    pub(super) fn gate_view(&self) -> Option<GateView> {
        self.gate.as_ref().map(|gate| GateView::new(&gate.status()))
    }

    pub(super) fn directory_view(&self) -> Option<DirectoryView> {
        self.directory.as_ref().map(DirectoryViews::view)
    }

    /// Why a workload has no identity, or none that is good for long; empty if all is well.
    #[must_use]
    pub fn identity_problem(&self, workload: WorkloadId) -> String {
        let held = self.identities.held(workload);
        held.as_deref().map(IdentityStatus::new).unwrap_or_default().problem
    }

    /// Adds what the rest of the agent knows to what capture sees.
    #[must_use]
    pub fn status(&self, view: StatusView) -> Status {
        let metrics = self.metrics.snapshot();
        let workloads = view.workloads.into_iter();
        let found = self.found.load();
        Status {
            node: self.node.clone(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            programs: view.programs,
            workloads: workloads.map(|capture| self.workload(capture)).collect(),
            pods: view.pods,
            gate: self.gate_view(),
            directory: self.directory_view(),
            taken_over: self.taken_over.as_deref().map(TakenOver::new),
            names: found.names.clone(),
            problems: found.problems.clone(),
            flows: metrics.total(FLOWS),
            idle_sessions: metrics.total(IDLE_SESSIONS),
            counters: counters(&metrics),
            maps: MapEntries::new(&metrics),
            metrics,
        }
    }

    fn workload(&self, capture: WorkloadStatus) -> Workload {
        let id = capture.id;
        let held = self.identities.held(id);
        let credentials = held.as_ref().and_then(|held| held.credentials.as_ref());
        Workload {
            svid: credentials.map(|credentials| SvidStatus::new(&credentials.svid)),
            identity: held.as_deref().map(IdentityStatus::new).unwrap_or_default(),
            // Not every workload has a series of its own.
            flows: self.counters.flows_of(id),
            capture,
        }
    }
}

fn counters(metrics: &Snapshot) -> BTreeMap<&'static str, u64> {
    metrics
        .0
        .iter()
        .filter(|family| family.kind != Kind::Histogram)
        .filter(|family| ![FLOWS, IDLE_SESSIONS, MAP_ENTRIES].contains(&family.name))
        .map(|family| (family.name, family.total()))
        .collect()
}

impl IdentityStatus {
    fn new(held: &IdentityState) -> Self {
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
    fn new(metrics: &Snapshot) -> Self {
        let entries = |map| metrics.labelled(MAP_ENTRIES, "map", map);
        Self { flows: entries("flows"), clients: entries("clients"), wires: entries("wires") }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::flow::Direction;
    use crate::metrics::Scalar;

    /// The names are what scripts and operators know.
    #[test]
    fn metrics_are_shown_by_their_names_and_those_with_a_field_only_there() {
        let counters = Arc::new(AgentCounters::default());
        let mut registry = Registry::new(|workload| Some(format!("w{workload}")));
        counters.register(&mut registry).unwrap();
        registry.register_read(Scalar::Gauge, IDLE_SESSIONS, "Sessions.", || Some(3)).unwrap();
        let _open = counters.open(7, Direction::Outbound);
        let _other = counters.open(8, Direction::Inbound);
        drop(counters.open(8, Direction::Inbound));
        let metrics = registry.snapshot();
        let shown = super::counters(&metrics);
        let names: Vec<_> = shown.keys().copied().collect();
        assert_eq!(
            names,
            [
                "connections_refused",
                "connections_shed",
                "endpoints_replaced",
                "flows_closed",
                "flows_moved",
                "flows_not_taken",
                "flows_opened",
                "flows_stayed",
                "flows_taken",
                "handshakes_failed",
                "inbound_passthrough",
                "inbound_plaintext",
                "outbound_plaintext",
                "sessions_found_dead",
                "sessions_reused",
                "strangers",
            ]
        );
        assert_eq!((shown["flows_opened"], shown["flows_closed"]), (3, 1));
        assert_eq!(metrics.total(FLOWS), 2);
        assert_eq!(metrics.labelled(FLOWS, "workload", "w8"), 1);
        assert_eq!([7, 8, 9].map(|workload| counters.flows_of(workload)), [1, 1, 0]);
    }
}
