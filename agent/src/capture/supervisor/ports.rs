//! Who owns the ports of each namespace. The declaration decides, not the process.
//!
//! A declared port is the workload's wherever the workload is, and in the agent's own namespace also before it has
//! been seen at all: a service manager may listen for it, or somebody else may be quicker. Once it is seen to live in a
//! namespace of its own, its ports in the agent's are other people's again.
//!
//! Where the workload listens, or listened last, is its own whoever else comes; so is every other address of the port,
//! but for those at which somebody else listens meanwhile.

use std::collections::{BTreeSet, HashMap};

use sheath_common::workload::WorkloadId;

use super::declared_ports::no_declared_ports;
use super::workload::WorkloadState;
use crate::capture::namespace::owned_sockets::OwnedSocket;
use crate::capture::namespace::ports::{InboundPorts, PortOwner, Taken};
use crate::desired::NamespaceKind;

/// What decides who owns the ports of a namespace.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceView<'p> {
    /// Inode number.
    pub inode: u64,
    /// It is the agent's own.
    pub is_own: bool,
    /// Those who listen there.
    pub listeners: &'p [OwnedSocket],
}

/// How certain it is that a workload's ports are in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tie {
    /// It is there.
    Present,
    /// It may come.
    Possible,
    None,
}

/// Works out who owns the ports of a namespace. `workloads` are those that the network may call, and `activators` the
/// cgroups that may listen for them. Also returns which workloads do not get theirs, and why.
pub fn assign(
    view: NamespaceView<'_>,
    workloads: &[&WorkloadState],
    activators: &HashMap<WorkloadId, u64>,
) -> (InboundPorts, Vec<(WorkloadId, String)>) {
    let mut ports = InboundPorts::default();
    let mut problems = Vec::new();
    let mut present = Vec::new();
    let mut possible = Vec::new();
    for workload in workloads {
        let tie = view.tie(workload);
        let claimed = match tie {
            Tie::Present if workload.ports().is_empty() => {
                view.claim_every_port(&mut ports, workload)
            }
            Tie::Present => {
                present.push(*workload);
                view.claim(&mut ports, workload).map_err(|taken| taken.to_string())
            }
            Tie::Possible => {
                possible.push(*workload);
                Ok(())
            }
            Tie::None => continue,
        };
        if let Err(reason) = claimed {
            problems.push((workload.id(), reason));
        }
        if let Some(cgroup) = activators.get(&workload.id()) {
            ports.activate(workload.id(), *cgroup);
        }
    }
    view.leave_to_others(&mut ports, &present);
    for workload in present.into_iter().chain(possible) {
        view.offer(&mut ports, workload);
    }
    (ports, problems)
}

impl NamespaceView<'_> {
    fn tie(&self, workload: &WorkloadState) -> Tie {
        if !self.is_own {
            let is_served = workload.served_in().contains(&self.inode);
            return if is_served { Tie::Present } else { Tie::None };
        }
        if workload.is_at_home_in(self.inode) {
            return Tie::Present;
        }
        if workload.lives_elsewhere() {
            // It may have been handed a socket of this namespace.
            let is_declared =
                |listener: &&OwnedSocket| workload.ports().contains(&listener.socket.local.port());
            let mut declared = self.listeners.iter().filter(is_declared);
            return match declared.any(|listener| workload.holds(listener)) {
                true => Tie::Present,
                false => Tie::None,
            };
        }
        match workload.config().inbound.namespace {
            NamespaceKind::Own => Tie::None,
            NamespaceKind::Any => Tie::Possible,
        }
    }

    /// Every port of a namespace of the workload's own; in the agent's, its services are refused until they are named.
    fn claim_every_port(
        &self,
        ports: &mut InboundPorts,
        workload: &WorkloadState,
    ) -> Result<(), String> {
        if !self.is_own {
            return ports.claim_rest(workload.id()).map_err(|taken| taken.to_string());
        }
        for listener in self.listeners.iter().filter(|listener| workload.owns(listener)) {
            let addresses = listener.socket.listens_at().into_iter().collect();
            ports.offer(PortOwner::Nobody, listener.socket.local.port(), Some(&addresses));
        }
        Err(no_declared_ports(workload, self.listeners))
    }

    /// Gives a workload its declared ports where they are known to be: as declared, or where it listens.
    fn claim(&self, ports: &mut InboundPorts, workload: &WorkloadState) -> Result<(), Taken> {
        let declared = &workload.config().inbound.addresses;
        let mut result = Ok(());
        for port in workload.ports() {
            let addresses = match declared.is_empty() {
                true => workload.listens_at(self.inode, *port),
                false => Some(declared),
            };
            let claimed = ports.claim(workload.id(), *port, addresses);
            result = result.and(claimed);
        }
        result
    }

    /// Where somebody else listens on a declared port, and the workload is known to listen at other addresses alone. Nothing
    /// is left to a socket whose cgroup is gone: it may have been a workload's, and then the guard drops what comes to it
    /// without a word.
    fn leave_to_others(&self, ports: &mut InboundPorts, present: &[&WorkloadState]) {
        for listener in self.listeners.iter().filter(|listener| listener.cgroup.is_some()) {
            let port = listener.socket.local.port();
            let claimants: Vec<_> =
                present.iter().filter(|workload| workload.ports().contains(&port)).collect();
            let are_known = claimants.iter().all(|workload| {
                !workload.config().inbound.addresses.is_empty()
                    || workload.listens_at(self.inode, port).is_some()
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
                ports.offer(PortOwner::Others, port, Some(&free));
            }
        }
    }

    /// Gives a workload the rest of its declared ports, as far as nobody has them. Where it listens against its own
    /// declaration, nobody is served.
    fn offer(&self, ports: &mut InboundPorts, workload: &WorkloadState) {
        let declared = &workload.config().inbound.addresses;
        let addresses = Some(declared).filter(|addresses| !addresses.is_empty());
        for port in workload.ports() {
            ports.offer(PortOwner::Workload(workload.id()), *port, addresses);
        }
        if addresses.is_none() {
            return;
        }
        for listener in self.listeners.iter().filter(|listener| workload.owns(listener)) {
            let port = listener.socket.local.port();
            if workload.ports().contains(&port) {
                let addresses = listener.socket.listens_at().into_iter().collect();
                ports.offer(PortOwner::Nobody, port, Some(&addresses));
            }
        }
    }
}

#[cfg(test)]
mod tests;
