//! Does this host have what the agent needs, and does the configuration suit it? Each finding says what to do.

mod host;
mod kubelet;
mod kubernetes;
mod listeners;
mod order;
mod pods;
mod running;
mod sandboxes;
mod surroundings;
mod units;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use sheath_common::selector::MAX_PATH;
use sheath_common::workload::InboundMode;

use crate::capture::{
    PodRoot, WorkloadCgroup, blocked_on_loopback, cgroup_directory, cgroup_mount, network_mounts,
    processes, shown_cgroup, workload_cgroups,
};
use crate::config::Config;
use crate::desired::{Bypass, Desired, Workload};
use crate::follow::Check;
use crate::materials::Materials;
use crate::policy::Policy;
use crate::steering::Steering;
use crate::terminal::{Cell, Mood, Table};

pub use host::requirements;
pub use running::running;

/// How serious a finding is.
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

    fn of(subject: &'static str, check: Check) -> Self {
        match check {
            Check::Good { found } => Self::ok(subject, found),
            Check::Doubtful { found, advice } => Self::warning(subject, found, advice),
            Check::Bad { found, advice } => Self::error(subject, found, advice),
        }
    }
}

/// Checks the host and the configuration. Changes nothing.
#[must_use]
pub fn check(config: &Config) -> Vec<Finding> {
    let mut findings = requirements();
    // Of what is missing already the kernel would say less clearly that it is.
    if findings.iter().all(|finding| finding.level != Level::Error) {
        findings.push(host::programs());
    }
    findings.extend(host::attachments(config));
    findings.extend(identities(&config.desired));
    findings.extend(discoveries(config));
    let mut materials = Materials::default();
    materials.follow(&config.desired);
    findings.extend(files(&materials));
    findings.extend(ports(&config.desired));
    findings.extend(rules(&config.desired, &materials));
    findings.extend(pods::pods(config));
    findings.extend(kubernetes::node(config));
    findings.extend(kubelet::kubelet(config));
    findings.extend(sandboxes::sandboxes(config));
    let root = config.pods.as_ref().map(|pods| &pods.root);
    findings.extend(workloads(&config.desired, root));
    findings.extend(order::order(&config.desired));
    findings.extend(mounts(&config.desired, root));
    findings.extend(listeners::listeners(&config.desired, root));
    findings
}

/// Whether each workload would get an identity from its source.
fn identities(desired: &Desired) -> Vec<Finding> {
    let checks = desired
        .workloads
        .iter()
        .filter_map(|workload| workload.source.check(&workload.name, workload.spiffe_id.as_ref()));
    // Many workloads may have one source.
    let mut seen = HashSet::new();
    let findings = checks.map(|check| Finding::of("identity", check));
    findings.filter(|finding| seen.insert(finding.found.clone())).collect()
}

/// Whether each discovery would find what it looks for.
fn discoveries(config: &Config) -> Vec<Finding> {
    let checks = config.discoveries.iter().flat_map(|discovery| {
        discovery.check().into_iter().map(|check| Finding::of(discovery.kind(), check))
    });
    checks.collect()
}

/// Files with bundles, pins, CRLs and TLS contexts.
fn files(materials: &Materials) -> Vec<Finding> {
    materials
        .problems()
        .into_iter()
        .map(|problem| {
            Finding::error(
                "files",
                problem.to_string(),
                "peers that rely on this file are refused until it is readable",
            )
        })
        .collect()
}

/// Ports that two workloads declare: a clash if both turn up in one network namespace.
fn ports(desired: &Desired) -> Vec<Finding> {
    let mut owners: HashMap<u16, &str> = HashMap::new();
    let mut findings = Vec::new();
    for workload in &desired.workloads {
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
fn rules(desired: &Desired, materials: &Materials) -> Vec<Finding> {
    let policy = Policy::new(desired, materials);
    let mut findings = Vec::new();
    for workload in &desired.workloads {
        for Bypass { destination: bypass, .. } in &workload.outbound.bypass {
            let contradicted = desired.peers.iter().any(|peer| peer.destinations.contains(bypass));
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

fn workloads<'d>(desired: &'d Desired, pods: Option<&PodRoot>) -> Vec<Finding> {
    let Ok(mount) = cgroup_mount() else {
        return Vec::new();
    };
    let mut owners: HashMap<u64, &str> = HashMap::new();
    let look = |workload: &'d Arc<Workload>| {
        let found = workload_cgroups(&mount, workload, pods).unwrap_or_default();
        let taken =
            found.selected.iter().find_map(|cgroup| Some((cgroup, *owners.get(&cgroup.id)?)));
        if let Some((cgroup, owner)) = taken {
            return Finding::warning(
                "workload",
                format!("`{}`: {} is `{owner}` already", workload.name, shown_cgroup(&cgroup.path)),
                "the workload that comes first has the cgroup; make the patterns disjoint",
            );
        }
        if let Some(cgroup) = found.too_long.first() {
            return Finding::warning(
                "workload",
                format!(
                    "`{}`: the path of {} is too long",
                    workload.name,
                    shown_cgroup(&cgroup.path)
                ),
                format!("its connections are refused; no path may be longer than {MAX_PATH} bytes"),
            );
        }
        if let Some(finding) = filtered(&mount, workload, &found.selected) {
            return finding;
        }
        owners.extend(found.selected.iter().map(|cgroup| (cgroup.id, workload.name.as_str())));
        let count = found.selected.len();
        // The filters of a running unit have been tried.
        let lacks = workload.cgroup.pattern().and_then(units::service);
        let lacks = lacks.filter(|_| count == 0).and_then(units::lacks);
        if let Some(lacks) = lacks {
            Finding::error(
                "workload",
                format!(
                    "`{}`: its unit blocks loopback, over which the workload reaches the agent",
                    workload.name
                ),
                format!(
                    "the unit needs {lacks}; a server needs its own addresses in IPAddressAllow= too"
                ),
            )
        } else if count == 0 {
            Finding::warning(
                "workload",
                format!("`{}`: no cgroup {} now", workload.name, workload.cgroup),
                "nothing to do if it will come; it is protected from its first moment",
            )
        } else {
            Finding::ok("workload", format!("`{}`: {count} cgroup(s)", workload.name))
        }
    };
    desired.workloads.iter().map(look).collect()
}

/// Network file systems: the kernel reads and writes them without any program of ours seeing it.
fn mounts(desired: &Desired, pods: Option<&PodRoot>) -> Vec<Finding> {
    let Ok(mount) = cgroup_mount() else {
        return Vec::new();
    };
    let of_cgroup = |cgroup: &WorkloadCgroup| {
        let pids = processes(&cgroup_directory(&mount, &cgroup.path)).unwrap_or_default();
        network_mounts(&pids)
    };
    let look = |workload: &Arc<Workload>| {
        let found = workload_cgroups(&mount, workload, pods).unwrap_or_default().selected;
        let seen: BTreeSet<_> = found.iter().flat_map(of_cgroup).collect();
        let listed: Vec<_> =
            seen.iter().map(|m| format!("{} {} on {}", m.kind, m.source, m.path)).collect();
        (!listed.is_empty()).then(|| {
            Finding::warning(
                "mounts",
                format!("`{}` sees {}", workload.name, listed.join(", ")),
                "the kernel uses connections of its own for it, which Sheath does not protect: mount NFS with `xprtsec=mtls`, or through a tunnel",
            )
        })
    };
    desired.workloads.iter().filter_map(look).collect()
}

/// Packet filters of others that block a workload's way to the agent.
fn filtered(mount: &Path, workload: &Workload, cgroups: &[WorkloadCgroup]) -> Option<Finding> {
    let serves = workload.inbound.mode != InboundMode::Disabled;
    let look = |cgroup: &WorkloadCgroup| {
        let directory = cgroup_directory(mount, &cgroup.path);
        let blocked = blocked_on_loopback(&directory, serves).ok().flatten()?;
        Some(Finding::error(
            "workload",
            format!("`{}`, {}: {blocked}", workload.name, shown_cgroup(&cgroup.path)),
            blocked.advice(),
        ))
    };
    cgroups.iter().find_map(look)
}

/// The findings as people read them.
#[must_use]
pub fn render(findings: &[Finding]) -> String {
    let mut table = Table::default();
    for finding in findings {
        let (level, mood) = match finding.level {
            Level::Ok => ("ok", Mood::Good),
            Level::Warning => ("warning", Mood::Doubtful),
            Level::Error => ("error", Mood::Bad),
        };
        let (subject, found) = (finding.subject.into(), finding.found.as_str().into());
        table.row([Cell::in_mood(level, mood), subject, found]);
        if !finding.advice.is_empty() {
            table.row(["", "", &finding.advice]);
        }
    }
    table.to_string()
}
