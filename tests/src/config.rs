//! The agent's configuration, as the tests write it. Serialised as JSON, which is YAML too.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::ca::PemFiles;

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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trust_domains: Vec<TrustDomain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls_contexts: Vec<TlsContext>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_peers: Vec<ExternalPeer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<Controller>,
    /// Environment variables of the agent.
    #[serde(skip)]
    pub environment: Vec<(&'static str, PathBuf)>,
    /// The agent's program.
    #[serde(skip)]
    pub binary: PathBuf,
}

/// The API server that pods are found by.
#[derive(Clone, Serialize)]
pub struct Kubernetes {
    /// The node's name in the cluster, where that is not the agent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    pub kubeconfig: PathBuf,
    pub kubelet: Kubelet,
    /// Who asks before a pod starts: `auto`, if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<&'static str>,
    /// Destinations that every pod reaches as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bypass: Vec<String>,
    #[serde(rename = "bypassServices", skip_serializing_if = "Vec::is_empty")]
    pub bypass_services: Vec<String>,
}

impl Kubernetes {
    pub fn new(kubeconfig: PathBuf) -> Self {
        Self {
            node: None,
            kubeconfig,
            kubelet: Kubelet::Auto,
            gate: None,
            bypass: Vec::new(),
            bypass_services: Vec::new(),
        }
    }
}

/// Whose probes are let through to pods.
#[derive(Clone, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kubelet {
    Auto,
    Cgroup(String),
    None,
}

/// The way to the controller.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    pub address: String,
    pub roots: PathBuf,
    pub token: PathBuf,
}

/// The controller as the source of identities.
#[derive(Clone, Serialize)]
pub struct OfController {}

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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<OfController>,
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
        #[serde(flatten)]
        pair: PemFiles,
        #[serde(skip_serializing_if = "Option::is_none")]
        bundle: Option<PathBuf>,
        allow_readable_key: bool,
    },
    Spire {
        selectors: Vec<String>,
    },
}

#[derive(Clone, Serialize)]
pub struct Capture {
    pub cgroup: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<Pods>,
}

/// The pods of a kubelet.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    pub root: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<&'static str>,
    pub host_network: bool,
    /// `None`: nothing is known about pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain: Option<Vec<String>>,
}

#[derive(Clone, Serialize)]
pub struct Log {
    pub level: &'static str,
    pub format: &'static str,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    pub connect: &'static str,
    pub handshake: &'static str,
    pub drain: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_closed: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_peer: Option<&'static str>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    pub name: String,
    pub select: Select,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
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
    CgroupId(u64),
    SystemdUnit(String),
    PodUid(String),
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inbound {
    pub mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<u16>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub published_ports: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activator: Option<String>,
    pub allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_pins: Vec<Pin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<StandardTls>,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
}

/// A certificate with a name.
#[derive(Clone, Serialize)]
pub struct TlsContext {
    pub name: String,
    pub files: PemFiles,
}

/// A service without an agent.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalPeer {
    pub name: String,
    #[serde(rename = "match")]
    pub matches: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<&'static str>,
    #[serde(flatten)]
    pub tls: StandardTls,
}

/// TLS with somebody without an agent, in either direction. What is left out has its default.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StandardTls {
    /// Inbound, in permissive mode: ports on which every TLS client is ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// `svid`, `none`, or a TLS context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<&'static str>,
}

/// Who may vouch for a name.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Trust {
    Bundle(PathBuf),
    System(bool),
    TrustDomain(String),
}

/// Names of which the peer must have one.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expect {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spiffe_ids: Vec<String>,
}

/// A certificate that is believed for what it is.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Pin {
    Certificate(PathBuf),
    CertificateSha256(String),
    SpkiSha256(String),
}

/// A trust domain besides what the source of identities says.
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
    pub unknown: &'static str,
    pub expired: &'static str,
}

#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired_peer: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

/// How sessions are kept for the next flow.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reuse {
    pub per_workload: usize,
    pub max_idle: &'static str,
    pub max_age: &'static str,
}

/// As many as agents keep, for longer than any scenario lasts: none ends on its own while others work on the machine.
impl Default for Reuse {
    fn default() -> Self {
        Self { per_workload: 256, max_idle: "1h", max_age: "1h" }
    }
}

impl Sessions {
    /// Kept in this way, and nothing else out of the ordinary.
    pub fn reused(reuse: Reuse) -> Option<Self> {
        Some(Self { reuse: Some(reuse), ..Self::default() })
    }
}

/// What each workload may take of the agent. What is left out has its default.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshakes_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffers: Option<&'static str>,
}

#[derive(Clone, Serialize)]
pub struct Dns {
    pub servers: Vec<SocketAddr>,
}

impl Workload {
    /// A workload that is neither captured nor steered until a mode is set.
    pub fn new(name: &str, cgroup: &str) -> Self {
        Self {
            name: name.to_owned(),
            select: Select::Cgroup(cgroup.to_owned()),
            spiffe_id: Some(spiffe_id(name)),
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
            published_ports: Vec::new(),
            addresses: Vec::new(),
            namespace: None,
            activator: None,
            allow: allow.iter().map(|name| spiffe_id(name)).collect(),
            allow_pins: Vec::new(),
            tls: None,
        });
        self
    }

    /// Takes its identity from these files, with trust from elsewhere.
    #[must_use]
    pub fn files(mut self, pair: PemFiles) -> Self {
        let identity = WorkloadIdentity::Files { pair, bundle: None, allow_readable_key: false };
        self.identity = Some(identity);
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
            pins: Vec::new(),
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

impl ExternalPeer {
    pub fn new(name: &str, matches: &[&str], tls: StandardTls) -> Self {
        Self {
            name: name.to_owned(),
            matches: matches.iter().map(ToString::to_string).collect(),
            family: None,
            sni: None,
            connect_timeout: None,
            tls,
        }
    }
}

impl StandardTls {
    /// Shows the certificate of a TLS context to peers that have this DNS name by the word of this
    /// authority.
    pub fn named(context: &str, authority: PathBuf, name: &str) -> Self {
        Self {
            certificate: Some(context.to_owned()),
            trust: Some(Trust::Bundle(authority)),
            expect: Some(Expect { dns_names: vec![name.to_owned()], ..Expect::default() }),
            ..Self::default()
        }
    }

    /// Shows the certificate of a TLS context to the peer that has this one.
    pub fn pinned(context: &str, certificate: PathBuf) -> Self {
        let pins = vec![Pin::Certificate(certificate)];
        Self { certificate: Some(context.to_owned()), pins, ..Self::default() }
    }
}

impl Config {
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("a configuration")
    }

    /// Settings of the embedded CA.
    pub fn embedded_ca(&mut self) -> &mut EmbeddedCa {
        self.identity.ca.as_mut().expect("an embedded CA")
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
