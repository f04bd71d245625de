//! What the agent says about itself: `sheath status --output json` and the access log.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub struct Status {
    pub node: String,
    pub instance: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub programs: Vec<Program>,
    pub workloads: Vec<Workload>,
    #[serde(default)]
    pub names: Vec<Name>,
    /// With a kubelet.
    #[serde(default)]
    pub pods: Option<Pods>,
    pub flows: u64,
    /// Sessions that wait for the next flow.
    pub idle_sessions: u64,
    pub counters: BTreeMap<String, u64>,
    // The benchmark compares with agents that do not have this yet.
    #[serde(default)]
    pub problems: Vec<Problem>,
    pub gate: Option<Gate>,
    /// After a hand-over.
    #[serde(default)]
    pub taken_over: Option<TakenOver>,
    /// With a controller.
    #[serde(default)]
    pub directory: Option<Directory>,
    pub maps: Maps,
    // The benchmark compares with agents that do not have this yet.
    #[serde(default)]
    pub metrics: Vec<Metric>,
}

/// A hand-over to the agent.
#[derive(Debug, Deserialize)]
pub struct TakenOver {
    pub at: String,
    pub pid: u32,
    pub version: String,
    pub flows_taken: u64,
    pub flows_refused: u64,
    pub has_ended: bool,
}

/// The controller's directory.
#[derive(Debug, Deserialize)]
pub struct Directory {
    pub known: bool,
    pub current: bool,
    pub epoch: u64,
    pub sequence: u64,
    pub entries: usize,
    pub plain: usize,
    pub pending: usize,
    pub protected: usize,
    #[serde(default)]
    pub ranges: Vec<String>,
    #[serde(default)]
    pub services: Services,
    pub problem: String,
}

/// What is known of Services.
#[derive(Debug, Default, Deserialize)]
pub struct Services {
    pub bypassed: Vec<Bypassed>,
    pub closed: BTreeMap<String, String>,
    pub services_without_room: usize,
}

/// A Service that is bypassed by its name.
#[derive(Debug, Deserialize)]
pub struct Bypassed {
    pub service: String,
    pub at: Vec<String>,
}

/// The pods of a kubelet.
#[derive(Debug, Deserialize)]
pub struct Pods {
    pub root: String,
    pub known: bool,
    pub decided: usize,
    pub held: Vec<HeldPod>,
    pub problem: String,
    pub kubelet: Option<Kubelet>,
}

/// Whose probes are let through to pods.
#[derive(Debug, Deserialize)]
pub struct Kubelet {
    pub pid: u32,
    pub cgroup: String,
    pub id: u64,
    pub others: Vec<String>,
    pub problem: String,
}

#[derive(Debug, Deserialize)]
pub struct HeldPod {
    pub uid: String,
    pub cgroup: String,
    pub since: String,
}

/// A metric with all its values.
#[derive(Debug, Deserialize)]
pub struct Metric {
    pub name: String,
    pub kind: String,
    pub help: String,
    pub series: Vec<Series>,
    pub rest: u64,
}

#[derive(Debug, Deserialize)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    /// Of a counter or a gauge.
    pub value: Option<u64>,
    /// Of a histogram.
    pub distribution: Option<Distribution>,
}

#[derive(Debug, Deserialize)]
pub struct Distribution {
    pub count: u64,
    pub sum: f64,
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Deserialize)]
pub struct Bucket {
    pub le: f64,
    pub count: u64,
}

#[derive(Debug, Deserialize)]
pub struct Program {
    pub name: String,
    pub kind: String,
    pub attached_to: String,
    pub observed: bool,
}

#[derive(Debug, Deserialize)]
pub struct Workload {
    pub name: String,
    // The benchmark compares with agents that do not have this yet.
    #[serde(default)]
    pub id: u32,
    pub spiffe_id: String,
    pub state: String,
    pub reason: String,
    pub cgroups: Vec<Cgroup>,
    pub namespaces: Vec<Namespace>,
    pub identity: Identity,
    pub svid: Option<Svid>,
    pub flows: u64,
    pub unprotected: Vec<Unprotected>,
    // As above.
    #[serde(default)]
    pub notes: Vec<String>,
    #[serde(default)]
    pub refused: Option<Refused>,
    #[serde(default)]
    pub outbound: Outbound,
}

/// How connections of a workload are treated.
#[derive(Debug, Default, Deserialize)]
pub struct Outbound {
    pub mode: String,
    #[serde(default)]
    pub bypass: Vec<Bypass>,
}

/// Where it may connect to as it likes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Bypass {
    pub destination: String,
    pub origin: String,
}

/// Connections that were refused.
#[derive(Debug, Deserialize)]
pub struct Refused {
    pub count: u64,
    pub reason: String,
    #[serde(default)]
    pub kinds: Vec<RefusedKind>,
}

/// Those that are alike.
#[derive(Debug, Deserialize)]
pub struct RefusedKind {
    pub direction: String,
    pub by: String,
    pub count: u64,
    pub source: Option<SocketAddr>,
    pub destination: SocketAddr,
    pub reason: String,
}

/// Who asks before a pod starts.
#[derive(Debug, Deserialize)]
pub struct Gate {
    pub in_force: String,
    pub runtime: String,
    pub plugin_installed: bool,
    pub admitted: u64,
    pub not_admitted: u64,
    pub problem: String,
}

/// What a discovery cannot find out.
#[derive(Debug, Deserialize)]
pub struct Problem {
    pub discovery: String,
    pub subject: String,
    pub problem: String,
}

/// A DNS name of an external peer.
#[derive(Debug, Deserialize)]
pub struct Name {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    /// Empty if it is resolved.
    pub problem: String,
}

#[derive(Debug, Deserialize)]
pub struct Cgroup {
    pub path: String,
    pub id: u64,
}

#[derive(Debug, Deserialize)]
pub struct Namespace {
    pub inode: u64,
    pub ready: bool,
    pub host: bool,
}

#[derive(Debug, Deserialize)]
pub struct Identity {
    pub source: String,
    /// Empty if all is well.
    pub problem: String,
}

#[derive(Debug, Deserialize)]
pub struct Svid {
    pub serial: Value,
    pub not_before: Value,
    pub not_after: Value,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Unprotected {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// Live entries in the kernel's tables.
#[derive(Debug, Deserialize)]
pub struct Maps {
    pub flows: u64,
    pub clients: u64,
}

impl Status {
    /// # Panics
    /// When the agent does not list the workload.
    pub fn workload(&self, name: &str) -> &Workload {
        self.workloads
            .iter()
            .find(|workload| workload.name == name)
            .unwrap_or_else(|| panic!("workload {name} in {self:#?}"))
    }

    /// # Panics
    /// When the agent has no counter of that name: a typo must not read as zero.
    pub fn counter(&self, name: &str) -> u64 {
        *self.counters.get(name).unwrap_or_else(|| panic!("counter {name} in {:?}", self.counters))
    }

    /// # Panics
    /// When the agent has no metric of that name.
    pub fn metric(&self, name: &str) -> &Metric {
        let mut metrics = self.metrics.iter();
        metrics.find(|metric| metric.name == name).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Whether nothing of any flow is left, neither in the agent nor in the kernel.
    pub fn is_idle(&self) -> bool {
        self.flows == 0
            && self.maps.flows == 0
            && self.maps.clients == 0
            && self.workloads.iter().all(|workload| workload.flows == 0)
    }
}

impl Metric {
    /// # Panics
    /// When no series has exactly these labels.
    pub fn series(&self, labels: &[(&str, &str)]) -> &Series {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut all = self.series.iter();
        all.find(|series| series.labels == labels)
            .unwrap_or_else(|| panic!("no series {labels:?} in {self:#?}"))
    }
}

/// One line of the access log.
#[derive(Clone, Debug, Deserialize)]
pub struct Access {
    pub flow: Value,
    pub direction: String,
    pub workload: String,
    pub local_id: String,
    pub peer_id: String,
    pub source: String,
    pub destination: String,
    /// Where it went, if a Service is at the destination.
    pub service: String,
    pub endpoint: String,
    /// What was written that allows the flow, or refuses it.
    pub rule: String,
    pub sent: u64,
    pub received: u64,
    pub duration_ms: f64,
    pub protection: String,
    pub tls_version: String,
    pub tls_suite: String,
    pub tls_group: String,
    /// On a session that was open already.
    pub reused: bool,
    pub outcome: String,
    pub stage: String,
    pub reason: String,
}

impl Access {
    /// The access line in a line of the JSON log, if it is one.
    pub fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        if value["target"] != "sheath::access" {
            return None;
        }
        Some(serde_json::from_value(value).unwrap_or_else(|error| panic!("{error} in {line}")))
    }

    pub fn is(&self, direction: &str, outcome: &str) -> bool {
        self.direction == direction && self.outcome == outcome
    }
}
