//! The controller's settings: one YAML document.

use std::collections::BTreeSet;
use std::env;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::authority::{SECRET, Terms};
use crate::config::{self, ConfigError, Period};
use crate::kubernetes::Access;
use crate::kubernetes::words::is_object_name;
use crate::spiffe::{SpiffeError, SpiffeId, TrustDomain};
use crate::telemetry::{self, LogFormat, LogSettings, NotAFilter};

/// Where the names of a replica come from when the settings do not say: the Deployment sets them by the downward API.
const POD_NAME: &str = "POD_NAME";
const POD_IP: &str = "POD_IP";

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Valid settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The identity that the controller shows to agents. Its trust domain is that of all identities.
    pub own: SpiffeId,
    pub listen: SocketAddr,
    /// Where other replicas' clients find this one. Port 0 stands for the one that is listened on.
    pub advertise: SocketAddr,
    /// The name of this replica's pod.
    pub name: String,
    pub access: Access,
    /// Its own namespace, where its Lease, Secret and ConfigMap are.
    pub namespace: String,
    /// The service account of agents, `<namespace>/<name>`.
    pub agent_service_account: String,
    /// Namespaces whose pods are never protected. Its own is among them.
    pub system_namespaces: BTreeSet<String>,
    pub terms: Terms,
    /// The Secret with the CA that is to sign, if that is not the controller's own.
    pub provided_ca: Option<String>,
    /// Addresses of pods, besides nodes' ranges.
    pub cluster_ranges: Vec<IpNet>,
    /// Addresses of Services, besides what the API tells.
    pub service_ranges: Vec<IpNet>,
    pub node_ranges: NodeRanges,
    /// Where it is asked whether this replica lives and is ready, and for its metrics. `None`: nowhere.
    pub health: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    pub log: LogSettings,
}

/// What the ranges of nodes (`podCIDRs`) mean.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum NodeRanges {
    /// Pods of other nodes have no address of a node's range.
    #[default]
    Own,
    /// They are ranges of pods, and any pod may have an address of them: the network gives addresses in its own way.
    Shared,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    File(#[from] ConfigError),
    #[error("{key} `{}` is no name that Kubernetes gives", found.escape_debug())]
    Name { key: &'static str, found: String },
    #[error("agentServiceAccount `{}` is not <namespace>/<name>", .0.escape_debug())]
    Account(String),
    #[error("kubeconfig must be an absolute path")]
    RelativeKubeconfig,
    #[error("the controller's identity would be `{id}`, which {error}")]
    Identity { id: String, error: SpiffeError },
    #[error("neither `{key}` nor the environment variable {variable} says {what}")]
    Unsaid { key: &'static str, variable: &'static str, what: &'static str },
    #[error("the environment variable {variable} is `{}`, which is no address", found.escape_debug())]
    Address { variable: &'static str, found: String },
    #[error("identity.{key} is shorter than {}", humantime::format_duration(*least))]
    Short { key: &'static str, least: Duration },
    #[error("identity.secret is {SECRET}, where the controller keeps its own CA; name another")]
    OwnSecret,
    #[error("identity.{key} is longer than {}", humantime::format_duration(*most))]
    Long { key: &'static str, most: Duration },
    #[error("{key}.listen has the port {port}, which `listen` has for agents; give it another")]
    SamePort { key: &'static str, port: u16 },
    #[error(transparent)]
    LogLevel(#[from] NotAFilter),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    #[serde(deserialize_with = "config::parsed")]
    trust_domain: TrustDomain,
    #[serde(default = "listen")]
    listen: SocketAddr,
    advertise: Option<SocketAddr>,
    name: Option<String>,
    kubeconfig: Option<PathBuf>,
    #[serde(default = "namespace")]
    namespace: String,
    #[serde(default = "service_account")]
    service_account: String,
    #[serde(default = "agent_service_account")]
    agent_service_account: String,
    #[serde(default = "system_namespaces")]
    system_namespaces: Vec<String>,
    #[serde(default)]
    identity: RawIdentity,
    #[serde(default)]
    cluster_ranges: Vec<IpNet>,
    #[serde(default)]
    service_ranges: Vec<IpNet>,
    #[serde(default)]
    node_ranges: NodeRanges,
    health: Option<RawListen>,
    metrics: Option<RawListen>,
    #[serde(default)]
    log: RawLog,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListen {
    listen: SocketAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct RawIdentity {
    svid_ttl: Period,
    intermediate_ttl: Period,
    root_ttl: Period,
    distribute: Period,
    secret: Option<String>,
}

impl Default for RawIdentity {
    fn default() -> Self {
        Self {
            svid_ttl: Period(DAY),
            intermediate_ttl: Period(30 * DAY),
            root_ttl: Period(3650 * DAY),
            distribute: Period(DAY),
            secret: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    level: String,
    format: LogFormat,
}

impl Default for RawLog {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

fn listen() -> SocketAddr {
    SocketAddr::from(([0_u16; 8], 15443))
}

fn namespace() -> String {
    "sheath-system".to_owned()
}

fn service_account() -> String {
    "sheath-controller".to_owned()
}

fn agent_service_account() -> String {
    "sheath-system/sheath-agent".to_owned()
}

fn system_namespaces() -> Vec<String> {
    ["kube-system", "sheath-system"].map(str::to_owned).into()
}

impl Settings {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        Self::checked(config::read(path)?)
    }

    fn checked(raw: Raw) -> Result<Self, SettingsError> {
        telemetry::filter(&raw.log.level)?;
        name("namespace", &raw.namespace)?;
        name("serviceAccount", &raw.service_account)?;
        let account = raw.agent_service_account;
        let parts = account.split_once('/').map(|(namespace, name)| [namespace, name]);
        if !parts.is_some_and(|parts| parts.into_iter().all(is_object_name)) {
            return Err(SettingsError::Account(account));
        }
        let access = match raw.kubeconfig {
            None => Access::Pod,
            Some(path) if path.is_absolute() => Access::Kubeconfig(path),
            Some(_) => return Err(SettingsError::RelativeKubeconfig),
        };
        let (domain, own) = (&raw.trust_domain, &raw.service_account);
        let id = format!("spiffe://{domain}/ns/{}/sa/{own}", raw.namespace);
        let own = id.parse().map_err(|error| SettingsError::Identity { id, error })?;
        let replica = raw.name.or_else(|| env::var(POD_NAME).ok());
        let replica = replica.ok_or(SettingsError::Unsaid {
            key: "name",
            variable: POD_NAME,
            what: "what this replica's pod is called",
        })?;
        name("name", &replica)?;
        Ok(Self {
            own,
            listen: raw.listen,
            advertise: raw.advertise.map_or_else(|| advertised(raw.listen), Ok)?,
            name: replica,
            access,
            system_namespaces: raw
                .system_namespaces
                .into_iter()
                .chain([raw.namespace.clone()])
                .collect(),
            namespace: raw.namespace,
            agent_service_account: account,
            terms: terms(&raw.identity)?,
            provided_ca: raw.identity.secret.map(provided_ca).transpose()?,
            cluster_ranges: raw.cluster_ranges,
            service_ranges: raw.service_ranges,
            node_ranges: raw.node_ranges,
            health: own_address("health", raw.health, raw.listen)?,
            metrics: own_address("metrics", raw.metrics, raw.listen)?,
            log: LogSettings { level: raw.log.level, format: raw.log.format },
        })
    }
}

/// Agents' calls have an address of their own.
fn own_address(
    key: &'static str,
    raw: Option<RawListen>,
    calls: SocketAddr,
) -> Result<Option<SocketAddr>, SettingsError> {
    match raw.map(|raw| raw.listen) {
        Some(at) if at.port() == calls.port() && at.port() != 0 => {
            Err(SettingsError::SamePort { key, port: at.port() })
        }
        at => Ok(at),
    }
}

/// The pod's own address, with the port that is listened on.
fn advertised(listen: SocketAddr) -> Result<SocketAddr, SettingsError> {
    let found = env::var(POD_IP).map_err(|_| SettingsError::Unsaid {
        key: "advertise",
        variable: POD_IP,
        what: "at which address agents find this replica",
    })?;
    let address: IpAddr =
        found.parse().map_err(|_| SettingsError::Address { variable: POD_IP, found })?;
    Ok(SocketAddr::new(address, listen.port()))
}

fn terms(raw: &RawIdentity) -> Result<Terms, SettingsError> {
    let terms = Terms {
        svid_ttl: raw.svid_ttl.0,
        intermediate_ttl: raw.intermediate_ttl.0,
        root_ttl: raw.root_ttl.0,
        distribute: raw.distribute.0,
    };
    let least = Duration::from_secs(10);
    for (key, value, least, most) in [
        ("svidTtl", terms.svid_ttl, least, 7 * DAY),
        ("intermediateTtl", terms.intermediate_ttl, 6 * terms.svid_ttl, 400 * DAY),
        ("distribute", terms.distribute, Duration::from_secs(1), 30 * DAY),
        ("rootTtl", terms.root_ttl, 2 * terms.root_renewal() + HOUR, 36_500 * DAY),
    ] {
        if value < least {
            return Err(SettingsError::Short { key, least });
        }
        if value > most {
            return Err(SettingsError::Long { key, most });
        }
    }
    Ok(terms)
}

fn provided_ca(secret: String) -> Result<String, SettingsError> {
    name("identity.secret", &secret)?;
    if secret == SECRET {
        return Err(SettingsError::OwnSecret);
    }
    Ok(secret)
}

fn name(key: &'static str, found: &str) -> Result<(), SettingsError> {
    match is_object_name(found) {
        true => Ok(()),
        false => Err(SettingsError::Name { key, found: found.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
