//! Namespaces that nothing of a workload is in, and to which it may come back: somebody listens there on its ports, as a
//! service manager does that starts it for each connection. The kernel does not know such a socket for the workload's, so
//! only the steering closes it to strangers.

use std::collections::BTreeSet;
use std::time::Instant;

use super::listening::is_inbound;
use super::observed::{LINGER, Observed};
use super::{MAX_NAMESPACES, Supervisor};
use crate::capture::namespace::owned_sockets::Owned;

impl Supervisor {
    /// Goes on serving the namespaces where a workload is awaited.
    pub(super) fn keep_awaited(&mut self) {
        let own = self.own_netns.inode();
        for workload in &mut self.workloads {
            let present = workload.namespaces();
            for inode in &present {
                if *inode != own
                    && workload.homes.len() < MAX_NAMESPACES
                    && workload.is_at_home_in(*inode)
                {
                    workload.homes.insert(*inode);
                }
            }
            let mut kept = BTreeSet::new();
            for inode in &workload.homes {
                let Some(served) = self.namespaces.get_mut(inode) else {
                    continue;
                };
                // What could not be seen is as it was.
                let is_awaited = match self.listening.get(inode) {
                    Some(all) => workload.is_awaited_by(all),
                    None => !present.contains(inode),
                };
                if is_awaited {
                    served.last_seen = Instant::now();
                }
                if is_awaited || present.contains(inode) {
                    kept.insert(*inode);
                }
            }
            workload.homes = kept;
        }
    }
}

impl Observed {
    /// Namespaces it has been at home in, and where none of its processes has been seen for a while.
    pub fn homes_left(&self) -> impl Iterator<Item = u64> {
        let is_left = |inode: &u64| {
            let mut sightings = self.cgroups.values().filter_map(|c| c.namespaces.get(inode));
            sightings.all(|sighting| sighting.is_older_than(LINGER / 2))
        };
        self.homes.iter().copied().filter(is_left)
    }

    /// Namespaces in which its ports are its own.
    pub fn served_in(&self) -> BTreeSet<u64> {
        let mut namespaces = self.namespaces();
        namespaces.extend(&self.homes);
        namespaces
    }

    /// True if one of these is what the network calls the workload at.
    fn is_awaited_by(&self, all: &[Owned]) -> bool {
        let ports = &self.config.inbound.ports;
        is_inbound(self)
            && all.iter().map(|listener| listener.socket.local).any(|local| {
                !local.ip().is_loopback() && (ports.is_empty() || ports.contains(&local.port()))
            })
    }
}

#[cfg(test)]
mod tests {
    use crate::capture::supervisor::listening::tests::{listener, workload};

    #[test]
    fn a_workload_is_awaited_on_its_ports_where_the_network_comes() {
        let mut workload = workload();
        for (at, declared, every) in [
            ("0.0.0.0:80", true, true),
            ("[::]:81", true, true),
            ("10.0.0.1:80", true, true),
            ("127.0.0.1:80", false, false),
            ("[::1]:80", false, false),
            ("0.0.0.0:9", false, true),
        ] {
            let all = [listener("/manager", at)];
            assert_eq!(workload.is_awaited_by(&all), declared, "{at}");
            let ports = std::mem::take(&mut workload.config.inbound.ports);
            assert_eq!(workload.is_awaited_by(&all), every, "{at}");
            workload.config.inbound.ports = ports;
        }
    }
}
