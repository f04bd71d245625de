//! Who listens on whose ports: what the steering goes by, and what status says of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use sheath_common::workload::InboundMode;

use super::Supervisor;
use super::observed::Observed;
use crate::capture::cgroups;
use crate::capture::namespace::owned_sockets::{self, Owned};
use crate::capture::proc::socket_inodes;

impl Supervisor {
    /// Lists those who listen in the agent's own namespace, in others in which a workload has declared ports, and where
    /// one may be awaited.
    pub(super) fn see_who_listens(&mut self) {
        let own = self.own_netns.inode();
        let mut wanted = BTreeSet::new();
        for workload in self.workloads.iter().filter(|workload| is_inbound(workload)) {
            wanted.insert(own);
            if !workload.config.inbound.ports.is_empty() {
                wanted.extend(workload.namespaces());
            }
            wanted.extend(workload.homes_left());
        }
        self.listening.retain(|inode, _| wanted.contains(inode));
        let mut unseen = None;
        for inode in wanted {
            let Some(served) = self.namespaces.get(&inode) else {
                continue;
            };
            match owned_sockets::listening(served.namespace.netns(), &self.mount) {
                Ok(found) => drop(self.listening.insert(inode, found)),
                // What was known still holds.
                Err(error) => {
                    tracing::debug!(namespace = inode, %error, "listeners not seen");
                    unseen = Some(format!("it cannot be seen who listens on its ports: {error}"));
                }
            }
        }
        for workload in &mut self.workloads {
            workload.notes.clear();
            if is_inbound(workload) {
                workload.hear(&self.listening);
                workload.notes.extend(unseen.clone());
            }
        }
    }

    /// Says what keeps a workload's ports from being served, or leaves a service of it unprotected.
    pub(super) fn say_who_listens(&mut self, problems: &mut [Option<String>]) {
        for (workload, problem) in self.workloads.iter_mut().zip(problems.iter_mut()) {
            if !is_inbound(workload) || workload.config.inbound.ports.is_empty() {
                continue;
            }
            let mut places = workload.namespaces();
            if places.is_empty() && !workload.lives_elsewhere {
                places.insert(self.own_netns.inode());
            }
            for inode in places {
                let Some(all) = self.listening.get(&inode) else {
                    continue;
                };
                let findings = workload.compare(all);
                if workload.processes.is_empty() {
                    workload.notes.extend(findings.problem);
                } else if let Some(found) = findings.problem {
                    problem.get_or_insert(found);
                }
                workload.notes.extend(findings.notes);
            }
        }
        for workload in &mut self.workloads {
            for note in workload.notes.iter().filter(|note| !workload.noted.contains(note)) {
                tracing::warn!(workload = workload.config.name, %note, "who listens");
            }
            workload.noted.clone_from(&workload.notes);
        }
    }
}

/// What is to be said about who listens.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub problem: Option<String>,
    pub notes: Vec<String>,
}

impl Observed {
    /// True if a socket is the workload's, or made for it by its activator.
    pub fn owns(&self, listener: &Owned) -> bool {
        self.cgroups.values().any(|enrolled| listener.is_of(&enrolled.path))
            || (listener.cgroup.is_some() && listener.cgroup.as_deref() == self.activator())
    }

    fn activator(&self) -> Option<&Path> {
        self.config.inbound.activator.as_deref().map(Path::new)
    }

    /// True if one of its processes has the socket, whoever made it.
    pub fn holds(&self, listener: &Owned) -> bool {
        socket_inodes(&self.processes).contains(&listener.socket.inode)
    }

    /// Notes where it listens. Where it does not listen any more is kept for as long as it is in the namespace: it may
    /// listen there again.
    fn hear(&mut self, listening: &HashMap<u64, Vec<Owned>>) {
        let mut heard: BTreeMap<(u64, u16), BTreeSet<IpAddr>> = BTreeMap::new();
        for (inode, all) in listening {
            for listener in all.iter().filter(|listener| self.owns(listener)) {
                let port = listener.socket.local.port();
                if self.config.inbound.ports.contains(&port) {
                    heard.entry((*inode, port)).or_default().extend(listener.socket.listens_at());
                }
            }
        }
        let present = self.namespaces();
        self.heard.retain(|(inode, _), _| present.contains(inode));
        self.heard.extend(heard);
    }

    /// Compares what is declared with who listens in a namespace.
    pub fn compare(&self, all: &[Owned]) -> Findings {
        let mut findings = Findings::default();
        let declared = &self.config.inbound.ports;
        let (own, others): (Vec<&Owned>, Vec<&Owned>) =
            all.iter().partition(|listener| self.owns(listener));
        let elsewhere: BTreeSet<SocketAddr> = own
            .iter()
            .map(|listener| listener.socket.local)
            .filter(|local| !local.ip().is_loopback() && !declared.contains(&local.port()))
            .collect();
        let is_heard =
            |port: &u16| own.iter().any(|listener| listener.socket.local.port() == *port);
        for port in declared.iter().filter(|port| !is_heard(port)) {
            if let Some(other) = others.iter().find(|other| is_in_the_way(other, *port, self)) {
                findings.problem.get_or_insert(format!(
                    "{} belongs to a socket of the cgroup {}, which is not the workload: nobody is served there",
                    other.socket.local,
                    other.cgroup.as_deref().map_or_else(|| "(gone)".to_owned(), cgroups::shown)
                ));
            }
        }
        if elsewhere.is_empty() {
            return findings;
        }
        let places = list(&elsewhere);
        if declared.iter().any(is_heard) {
            findings.notes.push(format!(
                "listens on {places} as well, which inbound.ports does not name: unprotected"
            ));
        } else {
            findings.problem.get_or_insert(format!(
                "nothing of it listens on {}, but it listens on {places}, which inbound.ports does not name: unprotected",
                ports(declared)
            ));
        }
        findings
    }
}

/// True if somebody else's socket has a declared port where the workload would have it.
fn is_in_the_way(other: &Owned, port: u16, workload: &Observed) -> bool {
    let local = other.socket.local;
    let addresses = &workload.config.inbound.addresses;
    local.port() == port
        && !local.ip().is_loopback()
        && (addresses.is_empty() || local.ip().is_unspecified() || addresses.contains(&local.ip()))
}

/// True if the network may call the workload by way of the agent.
pub(super) fn is_inbound(workload: &Observed) -> bool {
    workload.config.inbound.mode != InboundMode::Disabled
}

pub(super) fn list(places: &BTreeSet<SocketAddr>) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn ports(ports: &[u16]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use super::*;
    use crate::capture::supervisor::observed::{Enrolled, SETTLED};
    use crate::config::Config;
    use crate::sys::sock_diag::TcpSocket;

    pub fn workload() -> Observed {
        let text = r#"
trustDomain: example.org
node: n
identity: { ca: { dir: /ca } }
workloads:
  - name: web
    select: { cgroup: "web" }
    spiffeId: spiffe://example.org/web
    inbound: { mode: strict, ports: [80, 81], activator: /init.scope, allow: ["spiffe://example.org/a"] }
"#;
        let config = Config::parse(text, std::path::Path::new("sheath.yaml")).unwrap();
        let mut workload = Observed::new(config.workloads[0].clone());
        workload.cgroups.insert(7, Enrolled::new("/web".into(), false));
        workload
    }

    pub fn listener(cgroup: &str, at: &str) -> Owned {
        let socket = TcpSocket::listening(at.parse().unwrap());
        Owned { socket, cgroup: Some(cgroup.into()) }
    }

    #[test]
    fn who_has_listened_where_the_agent_is_lives_there_however_shortly_and_wherever_it_passed() {
        const OWN: u64 = 1;
        const ELSEWHERE: u64 = 2;
        let mut workload = workload();
        let now = Instant::now();
        let sight = |workload: &mut Observed, inode, since| {
            workload.cgroups.get_mut(&7).unwrap().sight(&BTreeSet::from([inode]), since);
        };
        // The one who starts it does so from another namespace.
        sight(&mut workload, ELSEWHERE, now);
        workload.see_where(OWN);
        assert!(!workload.lives_elsewhere);
        sight(&mut workload, OWN, now);
        workload.hear(&HashMap::from([(OWN, vec![listener("/web", "0.0.0.0:80")])]));
        workload.see_where(OWN);
        workload.cgroups.clear();
        workload.hear(&HashMap::new());
        assert_eq!(workload.see_where(OWN), [OWN, ELSEWHERE]);
        assert!(!workload.lives_elsewhere, "its port is open to everybody");

        workload.cgroups.insert(7, Enrolled::new("/web".into(), false));
        sight(&mut workload, ELSEWHERE, now - SETTLED);
        workload.see_where(OWN);
        assert!(workload.lives_elsewhere);
    }

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
            let findings = workload.compare(&all);
            let said = findings.problem.as_deref();
            assert_eq!(said.is_some(), problem.is_some(), "{all:?}: {said:?}");
            assert!(said.unwrap_or_default().contains(problem.unwrap_or_default()), "{said:?}");
            assert_eq!(findings.notes.len(), notes, "{all:?}");
        }
    }

    #[test]
    fn where_it_listened_last_is_remembered_while_it_is_there() {
        let mut workload = workload();
        let there = || BTreeSet::from([3]);
        let now = std::time::Instant::now();
        workload.cgroups.get_mut(&7).unwrap().sight(&there(), now);
        workload.hear(&HashMap::from([(3, vec![listener("/web", "10.0.0.1:80")])]));
        workload.hear(&HashMap::from([(3, vec![listener("/other", "10.0.0.9:80")])]));
        let known = workload.heard.get(&(3, 80)).unwrap();
        assert_eq!(*known, BTreeSet::from(["10.0.0.1".parse().unwrap()]));
        workload.cgroups.clear();
        workload.hear(&HashMap::new());
        assert!(workload.heard.is_empty());
    }
}
