//! The configuration file: one YAML document, parsed into types that hold only what is valid.
//!
//! `raw` mirrors the file key by key. This module turns it into [`Config`]: it resolves defaults and checks keys against
//! each other. Workloads, peers and trust become [`Desired`] values; each module gets the settings that it owns. The rest
//! of the agent works with those alone and does not know the file.

mod cgroup_paths;
mod consistency;
mod controller;
mod error;
mod identity;
mod instance;
mod known;
mod kubernetes;
mod limits;
mod peers;
mod pods;
mod raw;
mod reload;
mod tls;
mod words;
mod workload;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::capture::{CaptureRoot, PodSettings};
use crate::control;
use crate::controller_api::LinkSettings;
use crate::desired::{Desired, Origin, Pods};
use crate::discovery::{Discovery, Dns};
use crate::gate::GateSettings;
use crate::kubernetes::BypassedService;
use crate::limits::Limits;
use crate::pipeline::Timeouts;
use crate::relay::IdleTimeouts;
use crate::sessions::{ExpiredPeer, Reuse};
use crate::spiffe::TrustDomain;
use crate::sys::files;
use crate::telemetry::{self, LogSettings};

use consistency::{check_names, check_places, unique};
use identity::Sources;
use known::Known;
use kubernetes::KubernetesError;
use workload::WorkloadReader;

pub use error::{ConfigError, Invalid};
pub use instance::{DEFAULT_INSTANCE, DEFAULT_RUN_DIR, Instance, InstanceError, default_instance};
pub use limits::OverLimit;
pub use raw::{Period, parsed};
pub use reload::NeedsRestart;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of all identities of this node.
    pub trust_domain: TrustDomain,
    /// Name of the node, for people.
    pub node: String,
    /// Names pins, lock and admin socket.
    pub instance: Instance,
    /// Directory of the embedded CA, if it is set up.
    pub ca_dir: Option<PathBuf>,
    /// The cgroup that the programs attach to.
    pub capture: CaptureRoot,
    /// The pods of a kubelet, if there is one.
    pub pods: Option<PodSettings>,
    /// Who asks before a pod starts, where there are pods.
    pub gate: Option<GateSettings>,
    /// The way to the cluster's controller, if there is one.
    pub controller: Option<LinkSettings>,
    /// Services that every workload reaches as they are.
    pub bypassed_services: Vec<BypassedService>,
    /// Level and format of the log.
    pub log: LogSettings,
    /// How long each part of a flow may take.
    pub timeouts: Timeouts,
    /// How long live flows may go on after SIGTERM.
    pub drain: Duration,
    /// What finds further parts of the desired state.
    pub discoveries: Vec<Arc<dyn Discovery>>,
    /// What happens to live sessions when a peer's certificate expires.
    pub expired_peer: ExpiredPeer,
    /// Which sessions are kept for the next flow.
    pub reuse: Reuse,
    /// The quota of each workload.
    pub limits: Limits,
    /// The desired state, as far as the file describes it.
    pub desired: Desired,
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

    /// Parses a configuration; `path` is for messages and origins.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: raw::Config = read_yaml(text, path)?;
        Self::from_raw(raw, path).map_err(|cause| ConfigError::invalid(path, cause))
    }

    /// The settings of the control plane.
    #[must_use]
    pub fn control(&self) -> control::Settings {
        control::Settings {
            desired: self.desired.clone(),
            discoveries: self.discoveries.clone(),
            pod_root: self.pods.as_ref().map(|pods| pods.root.clone()),
            expired_peer: self.expired_peer,
        }
    }

    /// Logs what is in force, defaults included. A configuration holds no secrets, only paths to them.
    pub fn log_summary(&self) {
        tracing::info!(
            node = self.node,
            instance = self.instance.name,
            trust_domain = %self.trust_domain,
            capture = ?self.capture,
            pods = self.pods.as_ref().map(tracing::field::debug),
            "configuration"
        );
        self.desired.log();
        tracing::debug!(config = ?self, "configuration in full");
    }

    fn from_raw(raw: raw::Config, path: &Path) -> Result<Self, Invalid> {
        check_names(&raw)?;
        telemetry::filter(&raw.log.level)?;
        let instance = Instance::new(&raw.instance, &raw.run_dir)?;
        let domain = raw.trust_domain;
        let dns = Dns {
            servers: raw.dns.servers.into_iter().map(|server| server.0).collect(),
            memory: instance.names(),
        };
        let mut capture = cgroup_paths::capture_root(&raw.capture.cgroup)?;
        let mut pods = None;
        if let Some(section) = &raw.capture.pods {
            let mut workloads = raw.workloads.iter().flatten();
            let are_alone = workloads.all(|workload| workload.select.pod_uid.is_some());
            let (settings, captured) = pods::settings(section, capture, are_alone)?;
            (pods, capture) = (Some(settings), captured);
        }
        let plain = raw.capture.pods.and_then(|pods| pods.plain);
        let link = raw.controller.map(|raw| controller::settings(raw, &domain)).transpose()?;
        let sources = Sources::from_raw(raw.identity, &domain, link.as_ref())?;
        let mut discoveries: Vec<Arc<dyn Discovery>> = vec![Arc::new(dns)];
        let (mut gate, mut bypassed_services) = (None, Vec::new());
        match raw.kubernetes {
            Some(section) => {
                let pods = pods.as_mut().ok_or(KubernetesError::NoPods)?;
                pods.kubelet = kubernetes::kubelet(&section.kubelet, pods)?;
                gate = Some(kubernetes::gate(&section, pods)?);
                bypassed_services = kubernetes::bypassed(&section, link.is_some())?;
                let node = &raw.node;
                let found = kubernetes::discovery(section, node, &instance, &domain, &sources)?;
                discoveries.push(Arc::new(found));
            }
            None if raw.workloads.is_none() => return Err(Invalid::NothingSelected),
            None => {}
        }
        let lists = Lists {
            trust_domains: raw.trust_domains,
            tls_contexts: raw.tls_contexts,
            workloads: raw.workloads.unwrap_or_default(),
            peers: raw.peers,
            external_peers: raw.external_peers,
        };
        let file = File {
            path: path.into(),
            trust_domain: &domain,
            capture: &capture,
            has_pods: pods.is_some(),
        };
        let mut desired = lists.read(&file, &sources)?;
        desired.pods =
            plain.map(|plain| Pods { plain: plain.into_iter().map(|uid| uid.0).collect() });
        pods::check(&desired)?;
        let config = Self {
            desired,
            ca_dir: sources.ca_dir().map(Path::to_owned),
            trust_domain: domain,
            node: raw.node,
            instance,
            capture,
            pods,
            gate,
            controller: link,
            bypassed_services,
            log: LogSettings { level: raw.log.level, format: raw.log.format },
            drain: raw.timeouts.drain.0,
            timeouts: raw.timeouts.into(),
            discoveries,
            expired_peer: raw.sessions.expired_peer,
            reuse: raw.sessions.reuse.into(),
            limits: raw.limits.into(),
        };
        limits::check(&config.desired)?;
        Ok(config)
    }
}

/// Settings of the whole file that entries depend on.
struct File<'c> {
    path: Arc<Path>,
    trust_domain: &'c TrustDomain,
    capture: &'c CaptureRoot,
    has_pods: bool,
}

/// The lists that describe the desired state, as they are written.
struct Lists {
    trust_domains: Vec<raw::TrustDomainEntry>,
    tls_contexts: Vec<raw::TlsContext>,
    workloads: Vec<raw::Workload>,
    peers: Vec<raw::Peer>,
    external_peers: Vec<raw::ExternalPeer>,
}

impl Lists {
    fn read(self, file: &File<'_>, sources: &Sources) -> Result<Desired, Invalid> {
        let path = &file.path;
        let trust_domains = each(self.trust_domains, |index, entry| {
            let name = entry.name.clone();
            let origin = Origin::named(path, "trustDomains", index, &name.to_string());
            tls::trust_domain(origin, entry).map_err(|error| Invalid::TrustDomain { name, error })
        })?;
        let tls_contexts = each(self.tls_contexts, |index, context| {
            let origin = Origin::named(path, "tlsContexts", index, &context.name);
            tls::context(origin, context).map_err(Invalid::TlsContext)
        })?;
        let mut domains = unique("trust domain", trust_domains.iter().map(|entry| &entry.name))?;
        domains.insert(file.trust_domain.clone());
        let contexts = unique("TLS context", tls_contexts.iter().map(|context| &context.name))?;
        let known =
            Known { domains: &domains, any_domain: sources.may_federate(), contexts: &contexts };
        let reader = WorkloadReader { file, sources, known: &known };
        let workloads = each(self.workloads, |index, workload| {
            let name = workload.name.clone();
            reader.read(index, workload).map_err(|error| Invalid::Workload { name, error })
        })?;
        consistency::check_workloads(&workloads)?;
        let peers = each(self.peers, |index, peer| {
            let origin = Origin::indexed(path, "peers", index);
            peers::peer(origin.clone(), peer, &known)
                .map_err(|error| Invalid::Peer { origin, error })
        })?;
        let external_peers = each(self.external_peers, |index, peer| {
            let name = peer.name.clone();
            let origin = Origin::named(path, "externalPeers", index, &name);
            peers::external_peer(origin, peer, &known)
                .map_err(|error| Invalid::ExternalPeer { name, error })
        })?;
        unique("external peer", external_peers.iter().map(|peer| &peer.name))?;
        check_places(&peers, &external_peers)?;
        Ok(Desired {
            workloads,
            peers,
            external_peers,
            trust_domains,
            tls_contexts,
            ..Desired::default()
        })
    }
}

/// Reads each entry of a list.
fn each<R, T>(
    list: Vec<R>,
    read: impl Fn(usize, R) -> Result<T, Invalid>,
) -> Result<Vec<Arc<T>>, Invalid> {
    let read = |(index, entry)| read(index, entry).map(Arc::new);
    list.into_iter().enumerate().map(read).collect()
}

impl From<raw::Timeouts> for Timeouts {
    fn from(raw: raw::Timeouts) -> Self {
        Self {
            connect: raw.connect.0,
            handshake: raw.handshake.0,
            idle: IdleTimeouts {
                idle: raw.idle.0,
                half_closed: raw.half_closed.0,
                dead_peer: raw.dead_peer.0,
            },
        }
    }
}

impl From<raw::Reuse> for Reuse {
    fn from(raw: raw::Reuse) -> Self {
        Self { per_workload: raw.per_workload, max_idle: raw.max_idle.0, max_age: raw.max_age.0 }
    }
}

impl From<raw::Limits> for Limits {
    fn from(raw: raw::Limits) -> Self {
        Self {
            flows: raw.flows.map(NonZeroUsize::get),
            handshakes_per_second: raw.handshakes_per_second.get(),
            buffers: raw.buffers.0,
        }
    }
}

/// Reads a file of settings of another program than the agent.
///
/// # Errors
/// One that names the file and, where there is one, the line.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = files::read_text(path, files::CONFIGURATION)
        .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
    read_yaml(&text, path)
}

fn read_yaml<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    // There may be a hundred thousand peers. Only root writes the file: these bounds are against mistakes.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: 40_000_000, max_nodes: 20_000_000 },
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ConfigError::malformed(path, &error))
}

#[cfg(test)]
mod tests;
