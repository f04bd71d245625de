//! Whose the ports of each namespace are. They follow the declaration, not the process.
//!
//! A declared port is the workload's wherever the workload is, and in the agent's own namespace also before it has
//! been seen at all: a service manager may listen for it, or somebody else may be quicker. Once it is seen to live in a
//! namespace of its own, its ports in the agent's are other people's again.
//!
//! Where the workload listens, or listened last, is its own whoever else comes; so is every other address of the port,
//! but for those at which somebody else listens meanwhile.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use sheath_common::flow::ActivatedKey;

use super::Supervisor;
use super::listening::is_inbound;
use super::observed::{Observed, SETTLED};
use crate::capture::cgroups;
use crate::capture::namespace::owned_sockets::Owned;
use crate::capture::namespace::ports::{InboundPorts, Whose};
use crate::config::NamespaceKind;

/// How certain it is that a workload's ports are in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tie {
    /// It is there.
    Is,
    /// It may come.
    MayCome,
    Not,
}

impl Supervisor {
    /// Works out whose each namespace's ports are, and has them steered.
    pub(super) fn assign_ports(&mut self, problems: &mut [Option<String>]) {
        let own = self.own_netns.inode();
        let is_passing = self.workloads.iter().any(|workload| {
            is_inbound(workload)
                && (workload.has_just_come()
                    || (workload.namespaces().contains(&own) && !workload.is_settled_in(own)))
        });
        self.guard_activated(problems);
        self.look_again = is_passing.then(|| Instant::now() + SETTLED);
        let assigned: Vec<_> = self
            .namespaces
            .keys()
            .map(|inode| (*inode, self.ports_of(*inode, *inode == own, problems)))
            .collect();
        for (inode, ports) in assigned {
            let Some(served) = self.namespaces.get(&inode) else {
                continue;
            };
            if let Err(error) = served.namespace.steer(ports) {
                for (workload, problem) in self.workloads.iter().zip(problems.iter_mut()) {
                    if workload.served_in().contains(&inode) {
                        problem.get_or_insert(format!("inbound ports cannot be steered: {error}"));
                    }
                }
            }
        }
    }

    fn ports_of(&self, inode: u64, is_own: bool, problems: &mut [Option<String>]) -> InboundPorts {
        let nobody = Vec::new();
        let listening = self.listening.get(&inode).unwrap_or(&nobody);
        let mut ports = InboundPorts::default();
        let inbound: Vec<_> = self
            .workloads
            .iter()
            .zip(problems.iter_mut())
            .filter(|(workload, _)| is_inbound(workload))
            .map(|(workload, problem)| (workload, problem, tie(workload, inode, is_own, listening)))
            .collect();
        let mut settled = Vec::new();
        let mut coming = Vec::new();
        for (workload, problem, tie) in inbound {
            let claimed = match tie {
                Tie::Is if workload.config.inbound.ports.is_empty() => {
                    self.claim_every_port(&mut ports, workload, is_own, listening)
                }
                Tie::Is => {
                    settled.push(workload);
                    claim(&mut ports, workload, inode)
                }
                Tie::MayCome => {
                    coming.push(workload);
                    Ok(())
                }
                Tie::Not => Ok(()),
            };
            if let Err(reason) = claimed {
                problem.get_or_insert(reason);
            }
            if let Some(cgroup) = self.activator_of(workload)
                && tie != Tie::Not
            {
                ports.activate(workload.config.id, cgroup);
            }
        }
        self.leave_to_others(&mut ports, &settled, inode, listening);
        for workload in settled {
            offer(&mut ports, workload, listening);
        }
        for workload in coming {
            offer(&mut ports, workload, listening);
        }
        ports
    }

    /// Every port of a namespace of the workload's own; in the agent's, its services are refused until they are named.
    fn claim_every_port(
        &self,
        ports: &mut InboundPorts,
        workload: &Observed,
        is_own: bool,
        listening: &[Owned],
    ) -> Result<(), String> {
        if !is_own {
            return ports.claim_rest(workload.config.id);
        }
        for listener in listening.iter().filter(|listener| workload.owns(listener)) {
            let addresses = listener.socket.listens_at().into_iter().collect();
            ports.offer(Whose::Nobody, listener.socket.local.port(), Some(&addresses));
        }
        Err(unnamed_ports(workload, listening))
    }

    /// Where somebody else listens on a declared port, and the workload is known to listen at other addresses alone.
    fn leave_to_others(
        &self,
        ports: &mut InboundPorts,
        settled: &[&Observed],
        inode: u64,
        listening: &[Owned],
    ) {
        for listener in listening {
            let port = listener.socket.local.port();
            let claimants: Vec<_> = settled
                .iter()
                .filter(|workload| workload.config.inbound.ports.contains(&port))
                .collect();
            let are_known = claimants.iter().all(|workload| {
                let inbound = &workload.config.inbound;
                !inbound.addresses.is_empty() || workload.heard.contains_key(&(inode, port))
            });
            let is_theirs = claimants.iter().any(|workload| workload.owns(listener));
            if claimants.is_empty() || !are_known || is_theirs {
                continue;
            }
            let free: BTreeSet<_> = listener
                .socket
                .listens_at()
                .into_iter()
                .filter(|address| !ports.has(*address, port))
                .collect();
            // Whoever made it: what a workload's process can accept from is not somebody else's.
            let is_held = || claimants.iter().any(|workload| workload.holds(listener));
            if !free.is_empty() && !is_held() {
                ports.offer(Whose::Others, port, Some(&free));
            }
        }
    }

    /// What a service manager listens on for a workload is guarded like what the workload itself listens on.
    fn guard_activated(&mut self, problems: &mut [Option<String>]) {
        let mut activated = HashSet::new();
        for workload in self.workloads.iter().filter(|workload| is_inbound(workload)) {
            if let Some(cgroup) = self.activator_of(workload) {
                activated.extend(workload.config.inbound.ports.iter().map(|port| ActivatedKey {
                    cgroup,
                    port: u32::from(*port),
                    _reserved: 0,
                }));
            }
        }
        if self.activated.as_ref() == Some(&activated) {
            return;
        }
        match self.tables.set_activated(&activated) {
            Ok(()) => self.activated = Some(activated),
            Err(error) => {
                for (workload, problem) in self.workloads.iter().zip(problems.iter_mut()) {
                    if workload.config.inbound.activator.is_some() {
                        problem.get_or_insert(format!("inbound.activator is not guarded: {error}"));
                    }
                }
            }
        }
    }

    /// Id of the cgroup that may listen for the workload, while there is one.
    fn activator_of(&self, workload: &Observed) -> Option<u64> {
        use std::os::unix::fs::MetadataExt;
        let path = workload.config.inbound.activator.as_ref()?;
        let metadata = std::fs::metadata(cgroups::join(&self.mount, path)).ok()?;
        Some(metadata.ino())
    }
}

/// Why a workload without named ports is refused in the agent's namespace, and what to write.
pub(super) fn unnamed_ports(workload: &Observed, listening: &[Owned]) -> String {
    let mine = listening.iter().filter(|listener| workload.owns(listener));
    let named: BTreeSet<_> = mine.map(|listener| listener.socket.local.port()).collect();
    let named: Vec<_> = named.iter().map(ToString::to_string).collect();
    let example = if named.is_empty() { "8080".to_owned() } else { named.join(", ") };
    format!(
        "is in the agent's network namespace, whose ports are other people's too, so its callers are refused: \
         name its ports, as in `inbound: {{ ports: [{example}] }}`"
    )
}

fn tie(workload: &Observed, inode: u64, is_own: bool, listening: &[Owned]) -> Tie {
    let inbound = &workload.config.inbound;
    if !is_own {
        return if workload.served_in().contains(&inode) { Tie::Is } else { Tie::Not };
    }
    let of_ports = || {
        listening.iter().filter(|listener| inbound.ports.contains(&listener.socket.local.port()))
    };
    if workload.is_at_home_in(inode) {
        return Tie::Is;
    }
    if workload.lives_elsewhere {
        // It may have been handed a socket of this namespace.
        return if of_ports().any(|listener| workload.holds(listener)) {
            Tie::Is
        } else {
            Tie::Not
        };
    }
    match inbound.namespace {
        NamespaceKind::Own => Tie::Not,
        NamespaceKind::Any => Tie::MayCome,
    }
}

/// Gives a workload its declared ports where they are known to be: as declared, or where it listens.
fn claim(ports: &mut InboundPorts, workload: &Observed, inode: u64) -> Result<(), String> {
    let inbound = &workload.config.inbound;
    let mut result = Ok(());
    for port in &inbound.ports {
        let addresses = match inbound.addresses.is_empty() {
            true => workload.heard.get(&(inode, *port)),
            false => Some(&inbound.addresses),
        };
        let claimed = ports.claim(workload.config.id, *port, addresses);
        result = result.and(claimed);
    }
    result
}

/// Gives a workload the rest of its declared ports, as far as nobody has them. Where it listens against its own
/// declaration, nobody is served.
fn offer(ports: &mut InboundPorts, workload: &Observed, listening: &[Owned]) {
    let inbound = &workload.config.inbound;
    let addresses = Some(&inbound.addresses).filter(|addresses| !addresses.is_empty());
    for port in &inbound.ports {
        ports.offer(Whose::Workload(workload.config.id), *port, addresses);
    }
    if addresses.is_none() {
        return;
    }
    for listener in listening.iter().filter(|listener| workload.owns(listener)) {
        let port = listener.socket.local.port();
        if inbound.ports.contains(&port) {
            let addresses = listener.socket.listens_at().into_iter().collect();
            ports.offer(Whose::Nobody, port, Some(&addresses));
        }
    }
}
