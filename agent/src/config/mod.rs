//! The configuration file: one YAML document, parsed into types that hold only what is valid.
//!
//! [`raw`] mirrors the file key by key; this module turns it into [`Config`], resolving defaults and checking
//! what one key means for another. Everything after start-up works with `Config` alone.

mod destination;
mod error;
mod raw;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sheath_common::maps::MAX_CGROUP_DEPTH;
use sheath_common::selector::{MAX_SELECTORS, Selector};
use sheath_common::workload::{InboundMode, OutboundMode, Workload, WorkloadId, workload_id};

use crate::spiffe::{SpiffeId, TrustDomain};

pub use destination::Destination;
pub use error::ConfigError;
pub use raw::{Existing, LogFormat};

/// Directory of the admin socket and the lock, unless `runDir` says otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/sheath";
/// Name of the instance, unless `instance` says otherwise.
pub const DEFAULT_INSTANCE: &str = "default";

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub trust_domain: TrustDomain,
    pub node: String,
    pub instance: Instance,
    pub identity: IdentityConfig,
    pub capture: CaptureRoot,
    pub log: LogConfig,
    pub timeouts: Timeouts,
    pub workloads: Vec<WorkloadConfig>,
    pub peers: Vec<PeerConfig>,
}

/// Names everything on the node that belongs to one agent: pins, lock, admin socket.
#[derive(Clone, Debug)]
pub struct Instance {
    pub name: String,
    run_dir: PathBuf,
}

impl Instance {
    /// # Errors
    /// If the name has characters other than letters, digits, `-` and `_`.
    pub fn new(name: &str, run_dir: &Path) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return Err(format!("instance `{name}` must be 1 to 64 letters, digits, `-` or `_`"));
        }
        Ok(Self { name: name.to_owned(), run_dir: run_dir.to_owned() })
    }

    /// Directory of the instance's runtime files.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.run_dir.join(&self.name)
    }

    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.directory().join("lock")
    }

    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.directory().join("admin.sock")
    }
}

/// Where SVIDs come from.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// Directory of the embedded CA.
    pub ca_dir: PathBuf,
    pub svid_ttl: Duration,
}

/// The cgroup that the programs attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureRoot {
    /// The root of the cgroup v2 hierarchy.
    Auto,
    /// A cgroup below it, as `/a/b`.
    Below(String),
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A `tracing` filter directive, as `info` or `sheath=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Dialling a wire leg or a local application.
    pub connect: Duration,
    /// From the first byte of a TLS handshake to its last.
    pub handshake: Duration,
    /// How long live flows may go on after SIGTERM.
    pub drain: Duration,
}

#[derive(Clone, Debug)]
pub struct WorkloadConfig {
    pub id: WorkloadId,
    pub name: String,
    /// Path of the workload's cgroup below the cgroup v2 root, with `*` and `?` within components.
    pub cgroup: String,
    pub spiffe_id: SpiffeId,
    pub inbound: Inbound,
    pub outbound: Outbound,
    pub existing: Existing,
}

impl WorkloadConfig {
    /// The workload as the kernel's maps hold it.
    #[must_use]
    pub fn kernel_view(&self) -> Workload {
        let every_port =
            self.inbound.mode != InboundMode::Disabled && self.inbound.ports.is_empty();
        Workload::new(self.id, self.outbound.mode, self.inbound.mode, every_port)
    }

    /// How the kernel recognises the workload's cgroup.
    #[must_use]
    pub fn selector(&self) -> Selector {
        // The length was checked when the configuration was read.
        Selector::new(self.cgroup.as_bytes(), self.kernel_view()).unwrap_or(Selector::NONE)
    }
}

#[derive(Clone, Debug)]
pub struct Inbound {
    pub mode: InboundMode,
    /// Ports the mode applies to; empty for every port.
    pub ports: Vec<u16>,
    /// Who may call.
    pub allow: Vec<SpiffeId>,
}

#[derive(Clone, Debug)]
pub struct Outbound {
    pub mode: OutboundMode,
    pub bypass: Vec<Destination>,
}

/// Destinations that are reached by mutual TLS, and who must answer there.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    pub destinations: Vec<Destination>,
    pub spiffe_ids: Vec<SpiffeId>,
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// One that names the file and, where there is one, the line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        Self::parse(&text, path)
    }

    /// Says at start what is in force, defaults included. A configuration holds no secrets, only paths to them.
    pub fn log_summary(&self) {
        tracing::info!(
            node = self.node,
            instance = self.instance.name,
            trust_domain = %self.trust_domain,
            ca = %self.identity.ca_dir.display(),
            svid_ttl = %humantime::format_duration(self.identity.svid_ttl),
            capture = ?self.capture,
            "configuration"
        );
        for workload in &self.workloads {
            tracing::info!(
                name = workload.name,
                cgroup = workload.cgroup,
                spiffe_id = %workload.spiffe_id,
                inbound = ?workload.inbound.mode,
                ports = ?workload.inbound.ports,
                outbound = ?workload.outbound.mode,
                existing = ?workload.existing,
                "workload"
            );
        }
        tracing::debug!(config = ?self, "configuration in full");
    }

    /// Parses a configuration; `path` is only for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: raw::Config =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::malformed(path, &error))?;
        Self::try_from(raw).map_err(|reason| ConfigError::invalid(path, &reason))
    }
}

impl TryFrom<raw::Config> for Config {
    type Error = String;

    fn try_from(raw: raw::Config) -> Result<Self, String> {
        if raw.node.is_empty() {
            return Err("node is empty".to_owned());
        }
        let capture = capture_root(&raw.capture.cgroup)?;
        let workloads = raw
            .workloads
            .into_iter()
            .map(|workload| WorkloadConfig::from_raw(workload, &raw.trust_domain, &capture))
            .collect::<Result<Vec<_>, _>>()?;
        check_workloads(&workloads)?;
        let peers = raw
            .peers
            .into_iter()
            .enumerate()
            .map(|(index, peer)| PeerConfig::from_raw(index, peer, &raw.trust_domain))
            .collect::<Result<_, _>>()?;
        let ttl = raw.identity.ca.svid_ttl.0;
        if ttl < Duration::from_secs(60) {
            return Err("identity.ca.svidTtl is shorter than a minute".to_owned());
        }
        if ttl > Duration::from_secs(366 * 24 * 60 * 60) {
            return Err("identity.ca.svidTtl is longer than a year".to_owned());
        }
        Ok(Self {
            trust_domain: raw.trust_domain,
            node: raw.node,
            instance: Instance::new(&raw.instance, &raw.run_dir)?,
            identity: IdentityConfig { ca_dir: raw.identity.ca.dir, svid_ttl: ttl },
            capture,
            log: LogConfig { level: raw.log.level, format: raw.log.format },
            timeouts: Timeouts {
                connect: raw.timeouts.connect.0,
                handshake: raw.timeouts.handshake.0,
                drain: raw.timeouts.drain.0,
            },
            workloads,
            peers,
        })
    }
}

impl WorkloadConfig {
    fn from_raw(
        raw: raw::Workload,
        domain: &TrustDomain,
        capture: &CaptureRoot,
    ) -> Result<Self, String> {
        let name = raw.name;
        let within = |reason: String| format!("workload `{name}`: {reason}");
        if name.is_empty() {
            return Err("a workload has an empty name".to_owned());
        }
        let cgroup =
            raw.select.pattern().and_then(|p| check_pattern(p, capture)).map_err(within)?;
        if raw.spiffe_id.trust_domain() != domain {
            return Err(within(format!("{} is not in the trust domain {domain}", raw.spiffe_id)));
        }
        let inbound = raw.inbound.map(Inbound::from_raw).transpose().map_err(within)?;
        let workload = Self {
            id: workload_id(&name),
            cgroup,
            spiffe_id: raw.spiffe_id,
            inbound: inbound.unwrap_or(Inbound {
                mode: InboundMode::Disabled,
                ports: Vec::new(),
                allow: Vec::new(),
            }),
            outbound: raw.outbound.map_or(
                Outbound { mode: OutboundMode::Disabled, bypass: Vec::new() },
                |outbound| Outbound { mode: outbound.mode.into(), bypass: outbound.bypass },
            ),
            existing: raw.existing,
            name,
        };
        Ok(workload)
    }
}

impl Inbound {
    fn from_raw(raw: raw::Inbound) -> Result<Self, String> {
        let mode = raw.mode.into();
        if mode != InboundMode::Disabled && raw.allow.is_empty() {
            return Err("inbound.allow names nobody, so nobody could connect".to_owned());
        }
        if raw.ports.as_ref().is_some_and(|ports| ports.is_empty() || ports.contains(&0)) {
            return Err(
                "inbound.ports must name ports from 1 to 65535, or be left out for every port"
                    .to_owned(),
            );
        }
        Ok(Self { mode, ports: raw.ports.unwrap_or_default(), allow: raw.allow })
    }
}

impl PeerConfig {
    fn from_raw(index: usize, raw: raw::Peer, domain: &TrustDomain) -> Result<Self, String> {
        if raw.destinations.is_empty() || raw.spiffe_ids.is_empty() {
            return Err(format!("peers[{index}]: match and spiffeIds must not be empty"));
        }
        if let Some(foreign) = raw.spiffe_ids.iter().find(|id| id.trust_domain() != domain) {
            return Err(format!("peers[{index}]: {foreign} is not in the trust domain {domain}"));
        }
        Ok(Self { destinations: raw.destinations, spiffe_ids: raw.spiffe_ids })
    }
}

fn capture_root(text: &str) -> Result<CaptureRoot, String> {
    if text == "auto" {
        return Ok(CaptureRoot::Auto);
    }
    let path = format!("/{}", text.trim_matches('/'));
    if path == "/" || path.split('/').any(|part| part == "..") {
        return Err(format!(
            "capture.cgroup `{text}` must be `auto` or a path below the cgroup v2 root"
        ));
    }
    Ok(CaptureRoot::Below(path))
}

/// Brings a pattern to the form `/a/b*` and checks that the kernel can hold and reach it.
fn check_pattern(pattern: String, capture: &CaptureRoot) -> Result<String, String> {
    let pattern = format!("/{}", pattern.trim_matches('/'));
    let parts: Vec<_> = pattern.split('/').skip(1).collect();
    if parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") {
        return Err(format!("select.cgroup `{pattern}` has an empty or dotted component"));
    }
    if parts.len() > MAX_CGROUP_DEPTH as usize {
        return Err(format!("select.cgroup `{pattern}` is deeper than {MAX_CGROUP_DEPTH} levels"));
    }
    if Selector::new(pattern.as_bytes(), Workload::default()).is_none() {
        return Err(format!(
            "select.cgroup `{pattern}` is longer than {} bytes",
            sheath_common::selector::PATTERN_LEN
        ));
    }
    if let CaptureRoot::Below(root) = capture
        && !pattern.strip_prefix(root.as_str()).is_some_and(|rest| rest.starts_with('/'))
    {
        return Err(format!(
            "select.cgroup `{pattern}` is not below capture.cgroup `{root}`, where the programs would never see it"
        ));
    }
    Ok(pattern)
}

fn check_workloads(workloads: &[WorkloadConfig]) -> Result<(), String> {
    if workloads.len() > MAX_SELECTORS as usize {
        return Err(format!("more than {MAX_SELECTORS} workloads"));
    }
    let mut names = HashSet::new();
    let mut ids: BTreeMap<WorkloadId, &str> = BTreeMap::new();
    for workload in workloads {
        if !names.insert(&workload.name) {
            return Err(format!("two workloads are called `{}`", workload.name));
        }
        if let Some(other) = ids.insert(workload.id, &workload.name) {
            return Err(format!(
                "the names `{other}` and `{}` get the same number; rename one",
                workload.name
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
