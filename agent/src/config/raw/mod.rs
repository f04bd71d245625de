//! The file as it is written: one struct per mapping, unknown keys refused.

mod controller;
mod identity;
mod kubernetes;
mod tls;
mod values;

use std::env;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use sheath_common::workload::{InboundMode, OutboundMode};

use super::cgroup_paths::CgroupPathError;
use super::{DEFAULT_RUN_DIR, default_instance};
use crate::capture::UnknownPods;
use crate::desired::{CgroupSelector, Destination, Existing, NamespaceKind, PublishedPort};
use crate::sessions::ExpiredPeer;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::telemetry::LogFormat;

pub use controller::Controller;
pub use identity::{Identity, SourceKind, WorkloadIdentity};
pub use kubernetes::{Kubelet, Kubernetes};
pub use tls::{
    CrlFiles, Expect, ExternalPeer, InboundTls, Peer, Pin, StandardTls, TlsContext,
    TrustDomainEntry, TrustFrom,
};
use values::{Bytes, Limit, Server, Uid, parsed_list, parsed_option};
pub use values::{Period, parsed};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    #[serde(deserialize_with = "parsed")]
    pub trust_domain: TrustDomain,
    #[serde(default = "default_node")]
    pub node: String,
    #[serde(default = "default_instance")]
    pub instance: String,
    #[serde(default = "default_run_dir")]
    pub run_dir: PathBuf,
    #[serde(default)]
    pub identity: Identity,
    #[serde(default)]
    pub trust_domains: Vec<TrustDomainEntry>,
    #[serde(default)]
    pub tls_contexts: Vec<TlsContext>,
    #[serde(default)]
    pub capture: Capture,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub timeouts: Timeouts,
    #[serde(default)]
    pub dns: Dns,
    #[serde(default)]
    pub sessions: Sessions,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub kubernetes: Option<Kubernetes>,
    pub controller: Option<Controller>,
    pub workloads: Option<Vec<Workload>>,
    #[serde(default)]
    pub peers: Vec<Peer>,
    #[serde(default)]
    pub external_peers: Vec<ExternalPeer>,
}

/// The keys that name the instance; all others are ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceKeys {
    #[serde(default = "default_instance")]
    pub instance: String,
    #[serde(default = "default_run_dir")]
    pub run_dir: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    #[serde(default)]
    pub servers: Vec<Server>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Sessions {
    pub expired_peer: ExpiredPeer,
    pub reuse: Reuse,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Reuse {
    pub per_workload: usize,
    pub max_idle: Period,
    pub max_age: Period,
}

impl Default for Reuse {
    fn default() -> Self {
        Self {
            per_workload: 256,
            max_idle: Period(Duration::from_secs(30)),
            max_age: Period(Duration::from_secs(10 * 60)),
        }
    }
}

/// What each workload may take of the agent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Limits {
    pub flows: Option<NonZeroUsize>,
    pub handshakes_per_second: NonZeroU32,
    pub buffers: Bytes,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: None,
            handshakes_per_second: const { NonZeroU32::new(2000).unwrap() },
            buffers: Bytes(64 << 20),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    pub cgroup: String,
    pub pods: Option<Pods>,
}

impl Default for Capture {
    fn default() -> Self {
        Self { cgroup: "auto".to_owned(), pods: None }
    }
}

/// The pods of a kubelet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Pods {
    pub root: String,
    #[serde(default)]
    pub unknown: UnknownPods,
    #[serde(default)]
    pub host_network: bool,
    pub plain: Option<Vec<Uid>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Timeouts {
    pub connect: Period,
    pub handshake: Period,
    pub drain: Period,
    pub idle: Limit,
    pub half_closed: Limit,
    pub dead_peer: Limit,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Period(Duration::from_secs(10)),
            handshake: Period(Duration::from_secs(10)),
            drain: Period(Duration::from_secs(30)),
            idle: Limit(Some(Duration::from_secs(24 * 60 * 60))),
            half_closed: Limit(Some(Duration::from_secs(60 * 60))),
            dead_peer: Limit(Some(Duration::from_secs(2 * 60))),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Workload {
    pub name: String,
    pub select: Select,
    #[serde(default, deserialize_with = "parsed_option")]
    pub spiffe_id: Option<SpiffeId>,
    pub identity: Option<WorkloadIdentity>,
    pub inbound: Option<Inbound>,
    pub outbound: Option<Outbound>,
    #[serde(default)]
    pub existing: Existing,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Select {
    pub cgroup: Option<String>,
    pub cgroup_id: Option<NonZeroU64>,
    pub systemd_unit: Option<String>,
    pub pod_uid: Option<Uid>,
}

impl Select {
    /// The cgroups that are meant. A pattern is as it was written.
    ///
    /// # Errors
    /// If not exactly one of the keys is there, or if the unit is no service.
    pub fn selector(self) -> Result<CgroupSelector, CgroupPathError> {
        match (self.cgroup, self.cgroup_id, self.systemd_unit, self.pod_uid) {
            (Some(cgroup), None, None, None) => Ok(CgroupSelector::Pattern(cgroup)),
            (None, Some(id), None, None) => Ok(CgroupSelector::Id(id.get())),
            (None, None, Some(unit), None) => unit_cgroup(&unit).map(CgroupSelector::Pattern),
            (None, None, None, Some(uid)) => Ok(CgroupSelector::Pod(uid.0)),
            _ => Err(CgroupPathError::NotOneSelector),
        }
    }
}

/// The cgroup in which systemd keeps a service of the system manager, unless its `Slice=` says otherwise:
/// instances of a template have a slice of their own (systemd.slice(5), systemd.unit(5)).
fn unit_cgroup(unit: &str) -> Result<String, CgroupPathError> {
    if unit.contains('/') || !unit.ends_with(".service") {
        return Err(CgroupPathError::Unit(unit.to_owned()));
    }
    match unit.split_once('@') {
        Some((template, _)) if !template.is_empty() => {
            let slice = template.replace('-', "\\x2d");
            Ok(format!("/system.slice/system-{slice}.slice/{unit}"))
        }
        _ => Ok(format!("/system.slice/{unit}")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Inbound {
    pub mode: RawInboundMode,
    pub ports: Option<Vec<u16>>,
    #[serde(default)]
    pub published_ports: Vec<PublishedPort>,
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    #[serde(default)]
    pub namespace: NamespaceKind,
    pub activator: Option<String>,
    #[serde(default, deserialize_with = "parsed_list")]
    pub allow: Vec<SpiffeId>,
    #[serde(default)]
    pub allow_pins: Vec<Pin>,
    pub tls: Option<InboundTls>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawInboundMode {
    Strict,
    Permissive,
    Disabled,
}

impl From<RawInboundMode> for InboundMode {
    fn from(mode: RawInboundMode) -> Self {
        match mode {
            RawInboundMode::Strict => Self::Strict,
            RawInboundMode::Permissive => Self::Permissive,
            RawInboundMode::Disabled => Self::Disabled,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    pub mode: RawOutboundMode,
    #[serde(default, deserialize_with = "parsed_list")]
    pub bypass: Vec<Destination>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawOutboundMode {
    Require,
    Prefer,
    Disabled,
}

impl From<RawOutboundMode> for OutboundMode {
    fn from(mode: RawOutboundMode) -> Self {
        match mode {
            RawOutboundMode::Require => Self::Require,
            RawOutboundMode::Prefer => Self::Prefer,
            RawOutboundMode::Disabled => Self::Disabled,
        }
    }
}

/// Empty if nothing says it.
fn default_node() -> String {
    env::var("SHEATH_NODE").unwrap_or_default()
}

fn default_run_dir() -> PathBuf {
    DEFAULT_RUN_DIR.into()
}
