//! The agent's configuration, as the tests write it. Serialised as JSON, which is YAML too.

use std::path::Path;

use serde::Serialize;

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub trust_domain: String,
    pub node: String,
    pub instance: String,
    pub run_dir: String,
    pub identity: Identity,
    pub capture: Capture,
    pub log: Log,
    pub timeouts: Timeouts,
    pub workloads: Vec<Workload>,
    pub peers: Vec<Peer>,
}

#[derive(Clone, Serialize)]
pub struct Identity {
    pub ca: CaDir,
}

#[derive(Clone, Serialize)]
pub struct CaDir {
    pub dir: String,
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
    pub spiffe_id: String,
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

impl Config {
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("a configuration")
    }

    /// Where the agent looks for its certificate authority.
    pub fn ca_dir(&self) -> &Path {
        Path::new(&self.identity.ca.dir)
    }
}

/// The SPIFFE ID of the workload called `name` in these tests.
pub fn spiffe_id(name: &str) -> String {
    format!("spiffe://{}/ns/demo/sa/{name}", crate::world::TRUST_DOMAIN)
}
