//! The ports that a workload has declared, compared with who listens: what `sheath status` and `sheath check` say of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::report::Findings;
use super::workload::WorkloadState;
use crate::capture::cgroups;
use crate::capture::namespace::owned_sockets::OwnedSocket;

/// Compares what is declared with who listens in a namespace.
pub fn compare(workload: &WorkloadState, listeners: &[OwnedSocket]) -> Findings {
    let mut findings = Findings::default();
    let declared = workload.ports();
    let (own, others): (Vec<&OwnedSocket>, Vec<&OwnedSocket>) =
        listeners.iter().partition(|listener| workload.owns(listener));
    let has_listener =
        |port: &u16| own.iter().any(|listener| listener.socket.local.port() == *port);
    for port in declared.iter().filter(|port| !has_listener(port)) {
        if let Some(other) = others.iter().find(|other| is_in_the_way(other, *port, workload)) {
            findings.problem.get_or_insert(format!(
                "{} belongs to a socket of the cgroup {}, which is not the workload: nobody is served there",
                other.socket.local,
                other.cgroup.as_deref().map_or_else(|| "(gone)".to_owned(), cgroups::shown)
            ));
        }
    }
    let undeclared: BTreeSet<SocketAddr> = own
        .iter()
        .map(|listener| listener.socket.local)
        .filter(|local| !local.ip().is_loopback() && !declared.contains(&local.port()))
        .collect();
    if undeclared.is_empty() {
        return findings;
    }
    let places = list(&undeclared);
    if declared.iter().any(has_listener) {
        findings.notes.push(format!(
            "listens on {places} as well, which inbound.ports does not name: unprotected"
        ));
    } else {
        findings.problem.get_or_insert(format!(
            "nothing of it listens on {}, but it listens on {places}, which inbound.ports does not name: unprotected",
            list(declared)
        ));
    }
    findings
}

/// True if another's socket occupies a declared port at an address of the workload's.
fn is_in_the_way(other: &OwnedSocket, port: u16, workload: &WorkloadState) -> bool {
    let local = other.socket.local;
    let addresses = &workload.config().inbound.addresses;
    local.port() == port
        && !local.ip().is_loopback()
        && (addresses.is_empty() || local.ip().is_unspecified() || addresses.contains(&local.ip()))
}

/// Why a workload without declared ports is refused in the agent's namespace, and what to write.
pub fn no_declared_ports(workload: &WorkloadState, listeners: &[OwnedSocket]) -> String {
    let own = listeners.iter().filter(|listener| workload.owns(listener));
    let ports: BTreeSet<u16> = own.map(|listener| listener.socket.local.port()).collect();
    let example = if ports.is_empty() { "8080".to_owned() } else { list(&ports) };
    format!(
        "is in the agent's network namespace, whose ports are other people's too, so its callers are refused: \
         name its ports, as in `inbound: {{ ports: [{example}] }}`"
    )
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::supervisor::samples::{listener, workload};

    #[test]
    fn only_what_matters_is_said() {
        let workload = workload();
        for (all, problem, notes) in [
            (vec![], None, 0),
            (vec![listener("/web", "0.0.0.0:80")], None, 0),
            (vec![listener("/web/worker", "10.0.0.1:80")], None, 0),
            (vec![listener("/init.scope", "0.0.0.0:80")], None, 0),
            (vec![listener("/web", "0.0.0.0:80"), listener("/web", "0.0.0.0:9")], None, 1),
            (vec![listener("/web", "127.0.0.1:9")], None, 0),
            (vec![listener("/other", "0.0.0.0:9")], None, 0),
            (vec![listener("/other", "127.0.0.1:80")], None, 0),
            (vec![listener("/other", "0.0.0.0:80")], Some("cgroup /other"), 0),
            (vec![listener("/website", "0.0.0.0:80")], Some("cgroup /website"), 0),
            (vec![listener("/web", "[::]:9")], Some("listens on [::]:9"), 0),
        ] {
            let findings = compare(&workload, &all);
            let said = findings.problem.as_deref();
            assert_eq!(said.is_some(), problem.is_some(), "{all:?}: {said:?}");
            assert!(said.unwrap_or_default().contains(problem.unwrap_or_default()), "{said:?}");
            assert_eq!(findings.notes.len(), notes, "{all:?}");
        }
    }

    #[test]
    fn the_ports_to_declare_are_those_that_it_listens_on() {
        let workload = workload();
        assert!(no_declared_ports(&workload, &[]).contains("ports: [8080]"));
        let listeners = [
            listener("/web", "0.0.0.0:9"),
            listener("/web", "[::]:9"),
            listener("/web", "10.0.0.1:7"),
            listener("/other", "0.0.0.0:5"),
        ];
        assert!(no_declared_ports(&workload, &listeners).contains("ports: [7, 9]"));
    }
}
