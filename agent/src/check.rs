//! Does this host have what the agent needs, and does the configuration suit it? Each finding says what to do.

mod host;
mod listeners;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Serialize;
use sheath_common::workload::InboundMode;

use crate::capture::{cgroup_mount, workload_cgroups};
use crate::config::{Config, SourceConfig, WorkloadConfig};
use crate::control::Materials;
use crate::identity::{EmbeddedCa, FileSource};
use crate::policy::{Addresses, Policy};
use crate::tls::crypto_provider;

pub use host::requirements;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but perhaps not as meant.
    Warning,
    /// The agent will not start, or will not protect.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    pub subject: &'static str,
    pub found: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: String,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject, found: found.into(), advice: String::new() }
    }

    fn warning(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, subject, found: found.into(), advice: advice.into() }
    }

    fn error(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Error, ..Self::warning(subject, found, advice) }
    }
}

/// Looks at the host and the configuration, changing nothing.
#[must_use]
pub fn check(config: &Config) -> Vec<Finding> {
    let mut findings = requirements();
    findings.extend(host::attachments(config));
    findings.extend(identities(config));
    let mut materials = Materials::default();
    materials.follow(config);
    findings.extend(files(&materials));
    findings.extend(ports(config));
    findings.extend(rules(config, &materials));
    findings.extend(workloads(config));
    findings.extend(listeners::listeners(config));
    findings
}

/// Where each identity comes from, and whether it does.
fn identities(config: &Config) -> Vec<Finding> {
    let random = crypto_provider().secure_random;
    let mut findings = Vec::new();
    let mut cas = HashSet::new();
    for workload in &config.workloads {
        match &workload.source {
            SourceConfig::Ca { dir, .. } => {
                if cas.insert(dir) {
                    findings.push(certificate_authority(config, dir));
                }
            }
            SourceConfig::Files(files) => {
                let source = FileSource::new(files.clone(), random);
                findings.push(match source.check(workload.spiffe_id.as_ref()) {
                    Ok(name) => Finding::ok("identity", format!("`{}` is {name}", workload.name)),
                    Err(reason) => Finding::error(
                        "identity",
                        format!("`{}`: {reason}", workload.name),
                        "put the files there; the agent refuses the workload's connections until then",
                    ),
                });
            }
            SourceConfig::Spire { socket, .. } => {
                if std::os::unix::net::UnixStream::connect(socket).is_err() {
                    findings.push(Finding::warning(
                        "identity",
                        format!("no SPIRE agent answers at {}", socket.display()),
                        "its admin socket is set by admin_socket_path in the SPIRE agent's configuration",
                    ));
                }
            }
        }
    }
    findings
}

fn certificate_authority(config: &Config, dir: &Path) -> Finding {
    match EmbeddedCa::load(dir, &config.trust_domain, crypto_provider().into()) {
        Ok(_) => {
            Finding::ok("identity", format!("CA of {} in {}", config.trust_domain, dir.display()))
        }
        Err(error) => Finding::error(
            "identity",
            error.to_string(),
            format!(
                "`sheath ca init --dir {} --trust-domain {}` makes a CA; or copy the one of the other nodes",
                dir.display(),
                config.trust_domain
            ),
        ),
    }
}

/// Files with bundles, pins, CRLs and TLS contexts.
fn files(materials: &Materials) -> Vec<Finding> {
    materials
        .problems()
        .into_iter()
        .map(|problem| {
            Finding::error(
                "files",
                problem,
                "whoever is to be believed by it is refused until then",
            )
        })
        .collect()
}

/// Ports that two workloads declare: a clash if both turn up in one network namespace.
fn ports(config: &Config) -> Vec<Finding> {
    let mut owners: HashMap<u16, &str> = HashMap::new();
    let mut findings = Vec::new();
    for workload in &config.workloads {
        if workload.inbound.mode == InboundMode::Disabled {
            continue;
        }
        for port in &workload.inbound.ports {
            if let Some(other) = owners.insert(*port, &workload.name) {
                findings.push(Finding::warning(
                    "ports",
                    format!("`{other}` and `{}` both declare port {port}", workload.name),
                    "fine in separate network namespaces; in one, only the first gets the port",
                ));
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("ports", "no port is declared twice"));
    }
    findings
}

/// Bypasses that say the opposite of a peer entry for the very same destination.
fn rules(config: &Config, materials: &Materials) -> Vec<Finding> {
    let policy = Policy::new(config, materials, &Addresses::new());
    let mut findings = Vec::new();
    for workload in &config.workloads {
        for bypass in &workload.outbound.bypass {
            let contradicted = config.peers.iter().any(|peer| peer.destinations.contains(bypass));
            if contradicted {
                findings.push(Finding::warning(
                    "policy",
                    format!(
                        "`{}` bypasses {bypass}, which is also a peer; the peer entry wins",
                        workload.name
                    ),
                    "remove one of the two, or make the bypass more specific",
                ));
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "policy",
            format!("{} rules about destinations", policy.kernel_rules().len()),
        ));
    }
    findings
}

fn workloads<'c>(config: &'c Config) -> Vec<Finding> {
    let Ok(mount) = cgroup_mount() else {
        return Vec::new();
    };
    let mut owners: HashMap<u64, &str> = HashMap::new();
    let look = |workload: &'c WorkloadConfig| {
        let found = workload_cgroups(&mount, workload).unwrap_or_default();
        let taken = found.iter().find_map(|cgroup| Some((cgroup, *owners.get(&cgroup.id)?)));
        if let Some((cgroup, owner)) = taken {
            return Finding::warning(
                "workload",
                format!("`{}`: {} is `{owner}` already", workload.name, cgroup.path),
                "the workload that comes first has the cgroup; make the patterns disjoint",
            );
        }
        owners.extend(found.iter().map(|cgroup| (cgroup.id, workload.name.as_str())));
        let count = found.len();
        if count == 0 {
            Finding::warning(
                "workload",
                format!("`{}`: no cgroup {} now", workload.name, workload.cgroup),
                "nothing to do if it will come; it is protected from its first moment",
            )
        } else {
            Finding::ok("workload", format!("`{}`: {count} cgroup(s)", workload.name))
        }
    };
    config.workloads.iter().map(look).collect()
}

/// The findings as people read them.
#[must_use]
pub fn render(findings: &[Finding], colours: bool) -> String {
    let mut out = String::new();
    for finding in findings {
        let (word, code) = match finding.level {
            Level::Ok => ("ok", "32"),
            Level::Warning => ("warning", "33"),
            Level::Error => ("error", "31"),
        };
        let word =
            if colours { format!("\x1b[{code}m{word:<7}\x1b[0m") } else { format!("{word:<7}") };
        out.push_str(&format!("{word}  {:<10}  {}\n", finding.subject, finding.found));
        if !finding.advice.is_empty() {
            out.push_str(&format!("{:<21}{}\n", "", finding.advice));
        }
    }
    out
}
