//! The agent's configuration, as the tests write it. Serialised as JSON, which is YAML too.

use std::path::{Path, PathBuf};

use serde::Serialize;

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub trust_domain: String,
    pub node: String,
    pub instance: String,
    pub run_dir: String,
    pub identity: Identity,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trust_domains: Vec<TrustDomain>,
    pub capture: Capture,
    pub log: Log,
    pub timeouts: Timeouts,
    pub workloads: Vec<Workload>,
    pub peers: Vec<Peer>,
}

/// Where identities come from, if a workload does not say otherwise.
#[derive(Clone, Default, Serialize)]
pub struct Identity {
    /// `ca`, `files` or `spire`; needed if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<EmbeddedCa>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FileTree>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spire: Option<Spire>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EmbeddedCa {
    pub dir: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svid_ttl: Option<&'static str>,
}

/// A directory with one for each workload.
#[derive(Clone, Serialize)]
pub struct FileTree {
    pub dir: PathBuf,
}

#[derive(Clone, Serialize)]
pub struct Spire {
    pub socket: PathBuf,
}

/// Where one workload's identity comes from.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WorkloadIdentity {
    #[serde(rename_all = "camelCase")]
    Ca {
        svid_ttl: &'static str,
    },
    #[serde(rename_all = "camelCase")]
    Files {
        certificate: PathBuf,
        key: PathBuf,
        #[serde(skip_serializing_if = "Option::is_none")]
        bundle: Option<PathBuf>,
        allow_readable_key: bool,
    },
    Spire {
        selectors: Vec<String>,
    },
}

/// A further trust domain, or CRLs of any.
#[derive(Clone, Serialize)]
pub struct TrustDomain {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<Crl>,
}

#[derive(Clone, Serialize)]
pub struct Crl {
    pub files: Vec<PathBuf>,
}

#[derive(Clone, Serialize)]
pub struct Capture {
    pub cgroup: String,
}

#[derive(Clone, Serialize)]
pub struct Log {
    pub level: &'static str,
    pub format: &'static str,
}

#[derive(Clone, Serialize)]
pub struct Timeouts {
    pub connect: &'static str,
    pub handshake: &'static str,
    pub drain: &'static str,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    pub name: String,
    pub select: Select,
    /// Empty: whatever its certificate says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub spiffe_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<WorkloadIdentity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Inbound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Outbound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing: Option<&'static str>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Select {
    Cgroup(String),
    SystemdUnit(String),
}

#[derive(Clone, Serialize)]
pub struct Inbound {
    pub mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<u16>>,
    pub allow: Vec<String>,
}

#[derive(Clone, Serialize)]
pub struct Outbound {
    pub mode: &'static str,
    pub bypass: Vec<String>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    #[serde(rename = "match")]
    pub matches: Vec<String>,
    pub spiffe_ids: Vec<String>,
}

impl Workload {
    /// A workload that is neither captured nor steered until a mode is set.
    pub fn new(name: &str, cgroup: &str) -> Self {
        Self {
            name: name.to_owned(),
            select: Select::Cgroup(cgroup.to_owned()),
            spiffe_id: spiffe_id(name),
            identity: None,
            inbound: None,
            outbound: None,
            existing: None,
        }
    }

    /// `ports: None` is every port.
    #[must_use]
    pub fn inbound(mut self, mode: &'static str, ports: Option<&[u16]>, allow: &[&str]) -> Self {
        self.inbound = Some(Inbound {
            mode,
            ports: ports.map(<[u16]>::to_vec),
            allow: allow.iter().map(|name| spiffe_id(name)).collect(),
        });
        self
    }

    #[must_use]
    pub fn outbound(mut self, mode: &'static str, bypass: &[&str]) -> Self {
        let bypass = bypass.iter().map(ToString::to_string).collect();
        self.outbound = Some(Outbound { mode, bypass });
        self
    }
}

impl Peer {
    /// Destinations at which one of the named workloads is expected.
    pub fn new(matches: &[&str], names: &[&str]) -> Self {
        Self {
            matches: matches.iter().map(ToString::to_string).collect(),
            spiffe_ids: names.iter().map(|name| spiffe_id(name)).collect(),
        }
    }
}

impl Identity {
    pub fn ca(dir: &Path, svid_ttl: Option<&'static str>) -> Self {
        let ca = EmbeddedCa { dir: dir.display().to_string(), svid_ttl };
        Self { ca: Some(ca), ..Self::default() }
    }

    pub fn files(dir: &Path) -> Self {
        Self { files: Some(FileTree { dir: dir.to_owned() }), ..Self::default() }
    }

    pub fn spire(socket: &Path) -> Self {
        Self { spire: Some(Spire { socket: socket.to_owned() }), ..Self::default() }
    }
}

impl Config {
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("a configuration")
    }

    /// Where the agent looks for its certificate authority.
    pub fn ca_dir(&self) -> &Path {
        Path::new(&self.identity.ca.as_ref().expect("an embedded CA").dir)
    }
}

/// The SPIFFE ID of the workload called `name` in these tests.
pub fn spiffe_id(name: &str) -> String {
    format!("spiffe://{}/ns/demo/sa/{name}", crate::world::TRUST_DOMAIN)
}
