//! Workloads: which cgroups, which identity, and how their connections are treated.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sheath_common::pod_uid::PodUid;
use sheath_common::workload::{InboundMode, OutboundMode, WorkloadId};

use super::{Destination, InboundTls, Origin, PinSource, PublishedPort};
use crate::identity::SourceSettings;
use crate::spiffe::{IdPattern, SpiffeId};

/// Processes that share one identity, and how their connections are treated.
#[derive(Clone, Debug)]
pub struct Workload {
    pub origin: Origin,
    /// What the kernel calls it: zero (`NO_WORKLOAD`) until the control plane has given it a number.
    pub id: WorkloadId,
    pub name: String,
    pub cgroup: CgroupSelector,
    /// The SPIFFE ID that its certificate must have. `None` accepts what the source gives.
    pub spiffe_id: Option<SpiffeId>,
    /// Where its identity comes from.
    pub source: Arc<dyn SourceSettings>,
    pub inbound: Inbound,
    pub outbound: Outbound,
    pub existing: Existing,
}

impl Workload {
    /// What its number is for: its name, or its uid if it is a pod. The next pod of the same name is another workload. No
    /// name has a control character.
    #[must_use]
    pub fn key(&self) -> Cow<'_, str> {
        match self.cgroup {
            CgroupSelector::Pod(uid) => Cow::Owned(format!("\u{1}{uid}")),
            CgroupSelector::Pattern(_) | CgroupSelector::Id(_) => Cow::Borrowed(&self.name),
        }
    }
}

#[cfg(test)]
impl Workload {
    /// For tests: neither inbound nor outbound connections are touched.
    pub(crate) fn testing(name: &str) -> Self {
        Self {
            origin: Origin::BuiltIn,
            id: testing_id(name),
            name: name.to_owned(),
            cgroup: CgroupSelector::Pattern(format!("/{name}")),
            spiffe_id: None,
            source: Arc::new(crate::identity::SpireSettings {
                socket: "/spire.sock".into(),
                selectors: Vec::new(),
            }),
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            existing: Existing::Keep,
        }
    }
}

/// For tests: a number for a name, and the same for the same.
#[cfg(test)]
pub(crate) fn testing_id(name: &str) -> WorkloadId {
    name.bytes().fold(1, |id, byte| id * 31 % 1_000_003 + WorkloadId::from(byte))
}

/// The cgroups of a workload. Each includes all cgroups below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupSelector {
    /// All cgroups whose path from the cgroup v2 root matches, like `/a/b*`. `*` and `?` match within a component.
    Pattern(String),
    /// One existing cgroup, by the id that the kernel gave it.
    Id(u64),
    /// The cgroup of a Kubernetes pod, whether it is there already or not.
    Pod(PodUid),
}

impl CgroupSelector {
    /// The pattern, if it is one.
    #[must_use]
    pub fn pattern(&self) -> Option<&str> {
        match self {
            Self::Pattern(pattern) => Some(pattern),
            Self::Id(_) | Self::Pod(_) => None,
        }
    }
}

impl fmt::Display for CgroupSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => f.write_str(pattern),
            Self::Id(id) => write!(f, "with the id {id}"),
            Self::Pod(uid) => write!(f, "of the pod {uid}"),
        }
    }
}

/// How connections to a workload are treated.
#[derive(Clone, Debug)]
pub struct Inbound {
    pub mode: InboundMode,
    /// Ports the mode applies to; empty for every port.
    pub ports: Vec<u16>,
    /// As which other ports clients may know them.
    pub published_ports: Vec<PublishedPort>,
    /// Addresses at which these ports are the workload's; empty for every address at which it listens.
    pub addresses: BTreeSet<IpAddr>,
    /// Where the ports are the workload's before it has been seen anywhere.
    pub namespace: NamespaceKind,
    /// Path of the cgroup of a service manager that listens for the workload.
    pub activator: Option<String>,
    /// Who may call.
    pub allow: Vec<IdPattern>,
    pub allow_pins: Vec<PinSource>,
    /// For clients without an agent.
    pub tls: Option<InboundTls>,
    /// Ports at which the kubelet itself calls a pod, in the clear.
    pub probe_ports: BTreeSet<u16>,
}

impl Default for Inbound {
    fn default() -> Self {
        Self {
            mode: InboundMode::Disabled,
            ports: Vec::new(),
            published_ports: Vec::new(),
            addresses: BTreeSet::new(),
            namespace: NamespaceKind::Any,
            activator: None,
            allow: Vec::new(),
            allow_pins: Vec::new(),
            tls: None,
            probe_ports: BTreeSet::new(),
        }
    }
}

/// How connections from a workload are treated.
#[derive(Clone, Debug)]
pub struct Outbound {
    pub mode: OutboundMode,
    pub bypass: Vec<Bypass>,
}

/// A destination that a workload reaches as it likes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bypass {
    pub destination: Destination,
    pub origin: BypassOrigin,
}

/// Who has said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BypassOrigin {
    /// The workload's own configuration.
    Workload,
    /// What is written for all pods.
    Kubernetes,
    /// Nobody: the cluster's API server is there.
    ApiServer,
}

impl BypassOrigin {
    /// All of these destinations, for this reason.
    pub fn of(self, destinations: impl IntoIterator<Item = Destination>) -> Vec<Bypass> {
        destinations.into_iter().map(|destination| Bypass { destination, origin: self }).collect()
    }

    /// As the keys of the configuration have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Workload => "outbound.bypass",
            Self::Kubernetes => "kubernetes.bypass",
            Self::ApiServer => "API server",
        }
    }
}

impl Default for Outbound {
    fn default() -> Self {
        Self { mode: OutboundMode::Disabled, bypass: Vec::new() }
    }
}

/// Where a workload's ports may be before it has been seen anywhere.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// In the agent's network namespace as well.
    #[default]
    Any,
    /// In a network namespace of the workload's own.
    Own,
}

/// What becomes of connections that exist when a workload is enrolled.
#[derive(
    Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// They live on, and status lists them until they close.
    #[default]
    Keep,
    /// They are reset.
    Reset,
}
