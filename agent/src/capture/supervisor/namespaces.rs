//! The namespaces that are served, from the first of a workload's that is in one to the last; [`awaited`](super::awaited)
//! tells where it is kept longer.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::time::Instant;

use super::observed::LINGER;
use super::{MAX_NAMESPACES, Served, Supervisor};
use crate::capture::cgroups::WorkloadCgroup;
use crate::capture::error::CaptureError;
use crate::capture::namespace::{Namespace, owned_sockets};
use crate::capture::proc::{self, NamespaceFile};
use crate::sys::netns::{self, NetworkNamespace};
use crate::sys::pidfd;

impl Supervisor {
    /// Serves the namespaces that processes are in. Returns them, and why one could not be served.
    pub(super) fn serve_namespaces_of(
        &mut self,
        processes: &BTreeSet<u32>,
    ) -> (BTreeSet<u64>, Option<String>) {
        let mut namespaces = BTreeSet::new();
        let mut problem = None;
        for pid in processes {
            let file = match proc::network_namespace(*pid) {
                Ok(Some(file)) => file,
                // A process that has ended meanwhile is in no namespace.
                Ok(None) => continue,
                Err(error) => {
                    problem = Some(format!("process {pid} cannot be looked at: {error}"));
                    continue;
                }
            };
            if namespaces.contains(&file.inode) {
                continue;
            }
            if namespaces.len() == MAX_NAMESPACES {
                problem = Some(format!("is in more than {MAX_NAMESPACES} network namespaces"));
                break;
            }
            namespaces.insert(file.inode);
            if let Some(served) = self.namespaces.get_mut(&file.inode) {
                served.last_seen = Instant::now();
            } else if let Err(error) = self.serve_namespace_at(&file) {
                problem = Some(error.to_string());
            }
        }
        (namespaces, problem)
    }

    /// Serves namespaces that an earlier agent has served, and of which a workload still has a socket although nobody is
    /// in them: only the socket leads there.
    pub(super) fn serve_what_is_held(&mut self) -> io::Result<()> {
        let served: HashSet<u64> =
            self.namespaces.values().map(|served| served.namespace.cookie()).collect();
        let pinned: HashSet<u64> = self.steer_loader.pinned()?.into_iter().collect();
        let mut left: HashSet<u64> = pinned.difference(&served).copied().collect();
        for index in 0..self.workloads.len() {
            let processes = self.workloads[index].processes.clone();
            for (pid, descriptor) in processes
                .iter()
                .flat_map(|pid| proc::sockets(*pid).into_iter().map(|(fd, _)| (*pid, fd)))
            {
                if left.is_empty() {
                    return Ok(());
                }
                // Both may have gone meanwhile.
                let Ok(socket) = pidfd::copy_descriptor(pid, descriptor) else {
                    continue;
                };
                if !netns::socket_cookie(&socket).is_ok_and(|cookie| left.remove(&cookie)) {
                    continue;
                }
                let netns = NetworkNamespace::of_socket(&socket, &self.own_netns)?;
                let inode = netns.inode();
                self.serve(netns).map_err(io::Error::other)?;
                let now = Instant::now();
                for enrolled in self.workloads[index].cgroups.values_mut() {
                    enrolled.sight(&BTreeSet::from([inode]), now);
                }
            }
        }
        Ok(())
    }

    /// Namespaces that the workload has been in, and that still hold sockets of its although no process is seen there:
    /// a process may listen and go to another namespace, or have passed its socket on.
    ///
    /// # Errors
    /// If it cannot be seen; then it is as it was.
    pub(super) fn held_by(
        &mut self,
        index: usize,
        cgroup: &WorkloadCgroup,
        seen: &BTreeSet<u64>,
    ) -> io::Result<BTreeSet<u64>> {
        let mut held = BTreeSet::new();
        let Some(enrolled) = self.workloads[index].cgroups.get(&cgroup.id) else {
            return Ok(held);
        };
        // Looked for only where nobody has been seen for a while: most namespaces end with their last process.
        let left = enrolled.left_for(LINGER / 2).filter(|inode| !seen.contains(inode));
        for inode in left {
            let Some(served) = self.namespaces.get_mut(&inode) else {
                continue;
            };
            let netns = served.namespace.netns();
            let sockets = if netns.is_own() {
                owned_sockets::listening(netns, &self.mount)?
            } else {
                owned_sockets::all(netns, &self.mount)?
            };
            if sockets.iter().any(|socket| socket.is_of(&cgroup.path)) {
                served.last_seen = Instant::now();
                held.insert(inode);
            }
        }
        Ok(held)
    }

    fn serve_namespace_at(&mut self, file: &NamespaceFile) -> Result<(), CaptureError> {
        let netns = match NetworkNamespace::open(&file.path, &self.own_netns) {
            Ok(netns) => netns,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(CaptureError::during("cannot open a network namespace")(error));
            }
        };
        self.serve(netns)
    }

    pub(super) fn serve(&mut self, netns: NetworkNamespace) -> Result<(), CaptureError> {
        if self.namespaces.contains_key(&netns.inode()) {
            return Ok(());
        }
        let namespace =
            Namespace::open(netns, self.tables.clone(), &self.steer_loader, &self.starter)?;
        tracing::info!(
            namespace = namespace.inode(),
            cookie = namespace.cookie(),
            "network namespace served"
        );
        if let Err(error) = namespace.publish_sources(&self.routed_prefixes) {
            tracing::warn!(namespace = namespace.inode(), %error, "getsockname() may show a loopback address");
        }
        self.namespaces.insert(namespace.inode(), Served { namespace, last_seen: Instant::now() });
        Ok(())
    }

    /// Lets go of namespaces that no workload has been in for a while. The agent's own is always served: a
    /// workload may appear in it at any time.
    pub(super) fn let_go(&mut self) {
        self.listening.retain(|inode, _| self.namespaces.contains_key(inode));
        let is_gone = |served: &Served| {
            !served.namespace.is_agents_own() && served.last_seen.elapsed() > LINGER
        };
        self.namespaces.retain(|inode, served| {
            if is_gone(served) {
                tracing::info!(namespace = inode, "network namespace let go");
                served.namespace.close();
            }
            !is_gone(served)
        });
    }

    /// A family that a namespace did not have when it was first served may have come.
    pub(super) fn open_missing_listeners(&mut self, problems: &mut [Option<String>]) {
        for (inode, served) in &self.namespaces {
            if let Err(error) = served.namespace.listen(&self.starter) {
                for (workload, problem) in self.workloads.iter().zip(problems.iter_mut()) {
                    if workload.namespaces().contains(inode) {
                        problem.get_or_insert(format!(
                            "not every listener is open in network namespace {inode}: {error}"
                        ));
                    }
                }
            }
        }
    }

    /// Where each workload is now. What rests on its being there ends when it has left.
    pub(super) fn see_who_is_where(&mut self) {
        let own = self.own_netns.inode();
        for workload in &mut self.workloads {
            for inode in workload.see_where(own) {
                if let Some(served) = self.namespaces.get(&inode) {
                    served.namespace.leave(workload.config.id);
                }
            }
        }
    }
}
