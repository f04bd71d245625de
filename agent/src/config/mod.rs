//! The configuration file: one YAML document, parsed into types that hold only what is valid.
//!
//! [`raw`] mirrors the file key by key; this module turns it into [`Config`], resolving defaults and checking
//! what one key means for another. Everything after start-up works with `Config` alone.

mod destination;
mod error;
mod identity;
mod instance;
mod limits;
mod place;
mod published;
mod raw;
mod tls;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use sheath_common::maps::MAX_CGROUP_DEPTH;
use sheath_common::selector::Selector;
use sheath_common::workload::{InboundMode, OutboundMode, Workload, WorkloadId, workload_id};

use crate::capture::CaptureRoot;
use crate::pipeline::Timeouts;
use crate::relay::IdleTimeouts;
use crate::sessions::{ExpiredPeer, Reuse};
use crate::shares::Limits;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::sys::files;
use crate::telemetry::{self, LogSettings};

use identity::Sources;
use tls::Known;

pub use destination::Destination;
pub use error::ConfigError;
pub use identity::{BundleFile, IdentityFiles, Selector as SpireSelector, SourceConfig};
pub use instance::{DEFAULT_INSTANCE, DEFAULT_RUN_DIR, Instance};
pub use limits::{ADDRESSES_OF_A_NAME, OverLimit};
pub use place::Place;
pub use published::PublishedPort;
pub use raw::{Existing, NamespaceKind};
pub use tls::{
    CertificateChoice, CrlConfig, ExternalPeerConfig, Family, InboundTlsConfig, PeerConfig,
    PinConfig, StandardTls, TlsContextConfig, TrustChoice, TrustDomainConfig,
};

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub trust_domain: TrustDomain,
    pub node: String,
    pub instance: Instance,
    /// Directory of the embedded CA, if it is set up.
    pub ca_dir: Option<PathBuf>,
    pub trust_domains: Vec<TrustDomainConfig>,
    pub tls_contexts: Vec<TlsContextConfig>,
    pub capture: CaptureRoot,
    pub log: LogSettings,
    pub timeouts: Timeouts,
    /// How long live flows may go on after SIGTERM.
    pub drain: Duration,
    /// Resolvers of DNS names; empty for the system's.
    pub dns_servers: Vec<SocketAddr>,
    pub expired_peer: ExpiredPeer,
    pub reuse: Reuse,
    pub limits: Limits,
    pub workloads: Vec<WorkloadConfig>,
    pub peers: Vec<PeerConfig>,
    pub external_peers: Vec<ExternalPeerConfig>,
}

#[derive(Clone, Debug)]
pub struct WorkloadConfig {
    pub id: WorkloadId,
    pub name: String,
    /// Path of the workload's cgroup below the cgroup v2 root, with `*` and `?` within components.
    pub cgroup: String,
    /// What its certificate must carry. `None` leaves that to the source.
    pub spiffe_id: Option<SpiffeId>,
    pub source: SourceConfig,
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
    /// As which other ports clients may know them.
    pub published_ports: Vec<PublishedPort>,
    /// Addresses at which these ports are the workload's; empty for every address at which it listens.
    pub addresses: BTreeSet<IpAddr>,
    /// Where the ports are the workload's before it has been seen anywhere.
    pub namespace: NamespaceKind,
    /// Path of the cgroup of a service manager that listens for the workload.
    pub activator: Option<String>,
    /// Who may call.
    pub allow: Vec<SpiffeId>,
    pub allow_pins: Vec<PinConfig>,
    /// For clients without an agent.
    pub tls: Option<InboundTlsConfig>,
}

#[derive(Clone, Debug)]
pub struct Outbound {
    pub mode: OutboundMode,
    pub bypass: Vec<Destination>,
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// One that names the file and, where there is one, the line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = files::read_text(path, files::CONFIGURATION)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        Self::parse(&text, path)
    }

    /// Says at start what is in force, defaults included. A configuration holds no secrets, only paths to them.
    pub fn log_summary(&self) {
        tracing::info!(
            node = self.node,
            instance = self.instance.name,
            trust_domain = %self.trust_domain,
            capture = ?self.capture,
            "configuration"
        );
        for workload in &self.workloads {
            tracing::info!(
                name = workload.name,
                cgroup = workload.cgroup,
                spiffe_id = workload.spiffe_id.as_ref().map(tracing::field::display),
                source = ?workload.source,
                inbound = ?workload.inbound.mode,
                ports = ?workload.inbound.ports,
                outbound = ?workload.outbound.mode,
                existing = ?workload.existing,
                "workload"
            );
        }
        tracing::debug!(config = ?self, "configuration in full");
    }

    /// Whether a running agent can change over to `new`.
    ///
    /// # Errors
    /// The first key that takes a restart.
    pub fn check_reload(&self, new: &Self) -> Result<(), String> {
        let keys = [
            ("trustDomain", self.trust_domain == new.trust_domain),
            ("node", self.node == new.node),
            ("instance", self.instance == new.instance),
            ("capture", self.capture == new.capture),
            ("log", self.log == new.log),
            ("timeouts", (self.timeouts, self.drain) == (new.timeouts, new.drain)),
            ("sessions.reuse", self.reuse == new.reuse),
            ("limits", self.limits == new.limits),
        ];
        match keys.iter().find(|(_, same)| !same) {
            None => Ok(()),
            Some((key, _)) => Err(format!("{key} has changed, which takes a restart of the agent")),
        }
    }

    /// Parses a configuration; `path` is only for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: raw::Config = read_yaml(text, path)?;
        Self::try_from(raw).map_err(|reason| ConfigError::invalid(path, &reason))
    }
}

fn read_yaml<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    // Peers can be a hundred thousand. The file is root's own: these bounds are against mistakes.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: 40_000_000, max_nodes: 20_000_000 },
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ConfigError::malformed(path, &error))
}

impl TryFrom<raw::Config> for Config {
    type Error = String;

    fn try_from(raw: raw::Config) -> Result<Self, String> {
        if raw.node.is_empty() {
            return Err("node is empty".to_owned());
        }
        let named = raw.workloads.iter().map(|workload| &workload.name);
        let named = named.chain(raw.tls_contexts.iter().map(|context| &context.name));
        let mut named = named.chain(raw.external_peers.iter().map(|peer| &peer.name));
        if let Some(name) = named.find(|name| has_controls(name)) {
            return Err(format!("the name `{name}` has characters that are not shown"));
        }
        if has_controls(&raw.node) {
            return Err(format!("node `{}` has characters that are not shown", raw.node));
        }
        telemetry::filter(&raw.log.level).map_err(|error| error.to_string())?;
        let capture = capture_root(&raw.capture.cgroup)?;
        let sources = Sources::from_raw(raw.identity)?;
        let trust_domains = raw
            .trust_domains
            .into_iter()
            .map(TrustDomainConfig::from_raw)
            .collect::<Result<Vec<_>, _>>()?;
        let tls_contexts = raw
            .tls_contexts
            .into_iter()
            .map(TlsContextConfig::from_raw)
            .collect::<Result<Vec<_>, _>>()?;
        let mut domains = unique("trust domain", trust_domains.iter().map(|entry| &entry.name))?;
        domains.insert(raw.trust_domain.clone());
        let contexts = unique("TLS context", tls_contexts.iter().map(|context| &context.name))?;
        let known =
            Known { domains: &domains, any_domain: sources.may_federate(), contexts: &contexts };
        let reader = WorkloadReader {
            domain: &raw.trust_domain,
            capture: &capture,
            sources: &sources,
            known: &known,
        };
        let workloads = raw
            .workloads
            .into_iter()
            .map(|workload| reader.read(workload))
            .collect::<Result<Vec<_>, _>>()?;
        check_workloads(&workloads)?;
        let peers = raw
            .peers
            .into_iter()
            .enumerate()
            .map(|(index, peer)| PeerConfig::from_raw(index, peer, &known))
            .collect::<Result<Vec<_>, _>>()?;
        let external_peers = raw
            .external_peers
            .into_iter()
            .map(|peer| ExternalPeerConfig::from_raw(peer, &known))
            .collect::<Result<Vec<_>, _>>()?;
        unique("external peer", external_peers.iter().map(|peer| &peer.name))?;
        check_places(&peers, &external_peers)?;
        let config = Self {
            trust_domain: raw.trust_domain,
            node: raw.node,
            instance: Instance::new(&raw.instance, &raw.run_dir)?,
            ca_dir: sources.ca_dir().map(Path::to_owned),
            trust_domains,
            tls_contexts,
            capture,
            log: LogSettings { level: raw.log.level, format: raw.log.format },
            timeouts: Timeouts {
                connect: raw.timeouts.connect.0,
                handshake: raw.timeouts.handshake.0,
                idle: IdleTimeouts {
                    idle: raw.timeouts.idle.0,
                    half_closed: raw.timeouts.half_closed.0,
                    dead_peer: raw.timeouts.dead_peer.0,
                },
            },
            drain: raw.timeouts.drain.0,
            dns_servers: raw.dns.servers.into_iter().map(|server| server.0).collect(),
            expired_peer: raw.sessions.expired_peer,
            reuse: Reuse {
                per_workload: raw.sessions.reuse.per_workload,
                max_idle: raw.sessions.reuse.max_idle.0,
                max_age: raw.sessions.reuse.max_age.0,
            },
            limits: Limits {
                flows: raw.limits.flows.map(NonZeroUsize::get),
                handshakes_per_second: raw.limits.handshakes_per_second.get(),
                buffers: raw.limits.buffers.0,
            },
            workloads,
            peers,
            external_peers,
        };
        limits::check(&config).map_err(|error| error.to_string())?;
        Ok(config)
    }
}

/// Reads workloads, with what the rest of the file says.
struct WorkloadReader<'c> {
    domain: &'c TrustDomain,
    capture: &'c CaptureRoot,
    sources: &'c Sources,
    known: &'c Known<'c>,
}

impl WorkloadReader<'_> {
    fn read(&self, raw: raw::Workload) -> Result<WorkloadConfig, String> {
        let name = raw.name;
        let within = |reason: String| format!("workload `{name}`: {reason}");
        if name.is_empty() {
            return Err("a workload has an empty name".to_owned());
        }
        let cgroup =
            raw.select.pattern().and_then(|p| check_pattern(p, self.capture)).map_err(within)?;
        if let Some(id) = raw.spiffe_id.as_ref().filter(|id| id.trust_domain() != self.domain) {
            return Err(within(format!("{id} is not in the trust domain {}", self.domain)));
        }
        let source =
            self.sources.of(&name, raw.identity, raw.spiffe_id.as_ref()).map_err(within)?;
        let inbound = raw.inbound.map(|inbound| self.read_inbound(inbound)).transpose();
        let inbound = inbound.map_err(within)?;
        Ok(WorkloadConfig {
            id: workload_id(&name),
            cgroup,
            spiffe_id: raw.spiffe_id,
            source,
            inbound: inbound.unwrap_or_default(),
            outbound: raw.outbound.map_or(
                Outbound { mode: OutboundMode::Disabled, bypass: Vec::new() },
                |outbound| Outbound { mode: outbound.mode.into(), bypass: outbound.bypass },
            ),
            existing: raw.existing,
            name,
        })
    }

    fn read_inbound(&self, raw: raw::Inbound) -> Result<Inbound, String> {
        let mode = raw.mode.into();
        let nobody = raw.allow.is_empty() && raw.allow_pins.is_empty() && raw.tls.is_none();
        if mode != InboundMode::Disabled && nobody {
            return Err("inbound.allow names nobody, so nobody could connect".to_owned());
        }
        if raw.ports.as_ref().is_some_and(|ports| ports.is_empty() || ports.contains(&0)) {
            return Err(
                "inbound.ports must name ports from 1 to 65535, or be left out for every port"
                    .to_owned(),
            );
        }
        if let (Some(ports), false) = (&raw.ports, raw.published_ports.is_empty()) {
            let stray =
                raw.published_ports.iter().find(|published| !ports.contains(&published.port));
            if let Some(PublishedPort { published, port }) = stray {
                return Err(format!(
                    "inbound.publishedPorts: `{published}:{port}` leads to port {port}, which is not among inbound.ports"
                ));
            }
        }
        self.known.check_ids(&raw.allow)?;
        if raw.tls.as_ref().is_some_and(|tls| !tls.ports.is_empty())
            && mode != InboundMode::Permissive
        {
            return Err(
                "inbound.tls.ports is for permissive mode: in strict mode every TLS client is ours"
                    .to_owned(),
            );
        }
        let ports = raw.ports.unwrap_or_default();
        if ports.is_empty() && !raw.addresses.is_empty() {
            return Err("inbound.addresses needs inbound.ports".to_owned());
        }
        if let Some(address) = raw.addresses.iter().find(|address| address.is_unspecified()) {
            return Err(format!(
                "inbound.addresses: {address} is no address of a host; leave the key out for all addresses"
            ));
        }
        let activator = raw.activator.map(|path| check_activator(&path, self.capture)).transpose();
        Ok(Inbound {
            mode,
            ports,
            published_ports: raw.published_ports,
            addresses: raw.addresses.iter().map(IpAddr::to_canonical).collect(),
            namespace: raw.namespace,
            activator: activator?,
            allow: raw.allow,
            allow_pins: PinConfig::list(raw.allow_pins)?,
            tls: raw.tls.map(|tls| InboundTlsConfig::from_raw(tls, self.known)).transpose()?,
        })
    }
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
        }
    }
}

/// # Errors
/// If a name is there twice.
fn unique<'n, N>(what: &str, names: impl IntoIterator<Item = &'n N>) -> Result<HashSet<N>, String>
where
    N: Clone + Eq + Hash + fmt::Display + 'n,
{
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            return Err(format!("two {what}s are called `{name}`"));
        }
    }
    Ok(seen)
}

/// One place has one kind of peer.
fn check_places(peers: &[PeerConfig], external: &[ExternalPeerConfig]) -> Result<(), String> {
    let of_agents: HashSet<_> = peers.iter().flat_map(|peer| &peer.destinations).collect();
    let mut places: HashMap<&Place, &str> = HashMap::new();
    for peer in external {
        for place in &peer.places {
            let twice = |other: &str| {
                format!("external peer `{}`: {place} is also said to be {other}", peer.name)
            };
            if let Place::At(destination) = place
                && of_agents.contains(destination)
            {
                return Err(twice("in peers"));
            }
            if let Some(other) = places.insert(place, &peer.name) {
                return Err(twice(&format!("`{other}`")));
            }
        }
    }
    Ok(())
}

/// Names are shown in tables, on terminals.
fn has_controls(name: &str) -> bool {
    name.contains(char::is_control)
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

/// The cgroup of a service manager, as `/init.scope`. In the root cgroup may be anybody.
fn check_activator(text: &str, capture: &CaptureRoot) -> Result<String, String> {
    let path = format!("/{}", text.trim_matches('/'));
    if path.split('/').skip(1).any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(format!(
            "inbound.activator `{text}` must be a path below the cgroup v2 root, as `/init.scope`"
        ));
    }
    if let CaptureRoot::Below(root) = capture
        && !capture.covers(&path)
    {
        return Err(format!(
            "inbound.activator `{path}` is not below capture.cgroup `{root}`, where the programs would never see it"
        ));
    }
    Ok(path)
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
        && !capture.covers(&pattern)
    {
        return Err(format!(
            "select.cgroup `{pattern}` is not below capture.cgroup `{root}`, where the programs would never see it"
        ));
    }
    Ok(pattern)
}

fn check_workloads(workloads: &[WorkloadConfig]) -> Result<(), String> {
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
