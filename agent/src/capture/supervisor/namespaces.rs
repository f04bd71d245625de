//! The namespaces that are served: from the first of a workload's processes that is in one until nothing of a workload has
//! been there for a while.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};

use super::enrolled_cgroup::LINGER;
use super::whereabouts::MAX_NAMESPACES;
use crate::capture::error::CaptureError;
use crate::capture::filters;
use crate::capture::kernel::maps::Maps;
use crate::capture::kernel::steering::SteerLoader;
use crate::capture::namespace::{FlowStarter, Listeners, Namespace, existing, owned_sockets};
use crate::capture::proc::{self, NamespaceFile};
use crate::sys::netns::{self, NetworkNamespace};
use crate::sys::pidfd;

/// An entry that no accepted connection has taken in this time never will be.
const FLOW_LIFETIME: Duration = Duration::from_secs(120);

/// The namespaces that are served, by inode number. The agent's own always is: a workload may appear in it at any time.
#[derive(Debug)]
pub struct Namespaces {
    maps: Arc<Maps>,
    steer_loader: SteerLoader,
    starter: Arc<dyn FlowStarter>,
    /// Where the cgroup v2 hierarchy is mounted.
    mount: PathBuf,
    own: NetworkNamespace,
    /// Prefixes behind which somebody is reached by TLS: the kernel is told from which address connections there leave.
    prefixes: Vec<IpNet>,
    served: HashMap<u64, Served>,
}

#[derive(Debug)]
struct Served {
    namespace: Arc<Namespace>,
    last_seen: Instant,
}

impl Namespaces {
    /// Serves none yet.
    ///
    /// # Errors
    /// If the agent's own namespace cannot be opened.
    pub fn new(
        maps: Arc<Maps>,
        steer_loader: SteerLoader,
        starter: Arc<dyn FlowStarter>,
        mount: PathBuf,
    ) -> Result<Self, CaptureError> {
        let own = NetworkNamespace::own()
            .map_err(CaptureError::during("cannot open the agent's network namespace"))?;
        let served = HashMap::new();
        Ok(Self { maps, steer_loader, starter, mount, own, prefixes: Vec::new(), served })
    }

    /// Inode number of the agent's own.
    pub fn own_inode(&self) -> u64 {
        self.own.inode()
    }

    /// One that is served.
    pub fn get(&self, inode: u64) -> Option<&Namespace> {
        self.served.get(&inode).map(|served| &*served.namespace)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.served.values().map(|served| &*served.namespace)
    }

    /// Notes that a workload is in a namespace, or may come to it. False if the namespace is not served.
    pub fn keep(&mut self, inode: u64) -> bool {
        match self.served.get_mut(&inode) {
            Some(served) => {
                served.last_seen = Instant::now();
                true
            }
            None => false,
        }
    }

    /// Serves the agent's own.
    ///
    /// # Errors
    /// If it cannot be served; then nothing stays of the attempt.
    pub fn serve_own(&mut self) -> Result<(), CaptureError> {
        self.serve(self.own.clone())
    }

    /// Serves the namespaces that processes are in. Returns them, and why one could not be served.
    pub fn serve_those_of(&mut self, processes: &BTreeSet<u32>) -> (BTreeSet<u64>, Option<String>) {
        let mut namespaces = BTreeSet::new();
        let mut problem = None;
        for pid in processes {
            let file = match proc::network_namespace(*pid) {
                Ok(Some(file)) => file,
                // A process that has ended meanwhile is in no namespace.
                Ok(None) => continue,
                Err(error) => {
                    problem = Some(format!("process {pid} cannot be inspected: {error}"));
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
            if !self.keep(file.inode)
                && let Err(error) = self.serve_file(&file)
            {
                problem = Some(error.to_string());
            }
        }
        (namespaces, problem)
    }

    fn serve_file(&mut self, file: &NamespaceFile) -> Result<(), CaptureError> {
        match NetworkNamespace::open(&file.path, &self.own) {
            Ok(netns) => self.serve(netns),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(CaptureError::during("cannot open a network namespace")(error)),
        }
    }

    fn serve(&mut self, netns: NetworkNamespace) -> Result<(), CaptureError> {
        if self.served.contains_key(&netns.inode()) {
            return Ok(());
        }
        let namespace =
            Namespace::open(netns, self.maps.clone(), &self.steer_loader, &self.starter)?;
        tracing::info!(
            namespace = namespace.inode(),
            cookie = namespace.cookie(),
            "network namespace served"
        );
        if let Err(error) = namespace.publish_sources(&self.prefixes) {
            warn_of_sources(&namespace, &error);
        }
        self.starter.serves(&namespace);
        self.served.insert(namespace.inode(), Served { namespace, last_seen: Instant::now() });
        Ok(())
    }

    /// Cookies of namespaces that an earlier agent has served, and this one does not.
    ///
    /// # Errors
    /// If the pins cannot be listed.
    pub fn unserved(&self) -> io::Result<HashSet<u64>> {
        let served: HashSet<u64> = self.iter().map(Namespace::cookie).collect();
        let pinned = self.steer_loader.pinned()?;
        Ok(pinned.into_iter().filter(|cookie| !served.contains(cookie)).collect())
    }

    /// Serves those of the namespaces `unserved` that processes have a socket of although nobody is in them: only the
    /// socket leads there. Takes them out of the set, and returns their inode numbers.
    ///
    /// # Errors
    /// If one of them cannot be served.
    pub fn serve_held_by(
        &mut self,
        processes: &BTreeSet<u32>,
        unserved: &mut HashSet<u64>,
    ) -> io::Result<BTreeSet<u64>> {
        let mut found = BTreeSet::new();
        for (pid, descriptor) in processes
            .iter()
            .flat_map(|pid| proc::sockets(*pid).into_iter().map(|(fd, _)| (*pid, fd)))
        {
            if unserved.is_empty() {
                break;
            }
            // Both may have gone meanwhile.
            let Ok(socket) = pidfd::copy_descriptor(pid, descriptor) else {
                continue;
            };
            if netns::socket_cookie(&socket).is_ok_and(|cookie| unserved.remove(&cookie)) {
                let netns = NetworkNamespace::of_socket(&socket, &self.own)?;
                found.insert(netns.inode());
                self.serve(netns).map_err(io::Error::other)?;
            }
        }
        Ok(found)
    }

    /// Keeps those of the namespaces that hold sockets of a cgroup, and returns them: a process may listen and go to
    /// another namespace, or have passed its socket on.
    ///
    /// # Errors
    /// If it cannot be seen; then it is as it was.
    pub fn keep_where_sockets_of(
        &mut self,
        cgroup: &Path,
        namespaces: &BTreeSet<u64>,
    ) -> io::Result<BTreeSet<u64>> {
        let mut held = BTreeSet::new();
        for inode in namespaces {
            let Some(namespace) = self.get(*inode) else {
                continue;
            };
            let sockets = match namespace.is_agents_own() {
                true => owned_sockets::listening(namespace.netns(), &self.mount)?,
                false => owned_sockets::all(namespace.netns(), &self.mount)?,
            };
            if sockets.iter().any(|socket| socket.is_of(cgroup)) {
                self.keep(*inode);
                held.insert(*inode);
            }
        }
        Ok(held)
    }

    /// Addresses at which servers in these namespaces may be reached.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn own_addresses(&self, namespaces: &BTreeSet<u64>) -> io::Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for namespace in namespaces.iter().filter_map(|inode| self.get(*inode)) {
            addresses.extend(namespace.netns().run(filters::own_addresses)?);
        }
        Ok(addresses)
    }

    /// Opens listeners of families that a namespace did not have when it was first served. Returns where that failed.
    pub fn open_missing_listeners(&self) -> Vec<(u64, io::Error)> {
        let listen = |(inode, served): (&u64, &Served)| {
            Some((*inode, served.namespace.listen(&self.starter).err()?))
        };
        self.served.iter().filter_map(listen).collect()
    }

    /// Lets go of namespaces in which nothing of a workload has been for a while.
    pub fn release_unused(&mut self) {
        self.served.retain(|inode, served| {
            let is_used = served.namespace.is_agents_own() || served.last_seen.elapsed() <= LINGER;
            if !is_used {
                tracing::info!(namespace = inode, "network namespace no longer served");
                served.namespace.close();
            }
            is_used
        });
    }

    /// Changes the prefixes that connections are known to go to. True if they are others: the kernel is told with
    /// [`Self::publish_sources`].
    pub fn set_prefixes(&mut self, prefixes: Vec<IpNet>) -> bool {
        let are_others = self.prefixes != prefixes;
        self.prefixes = prefixes;
        are_others
    }

    /// Tells the kernel from which address connections leave to each prefix, and to no other.
    pub fn publish_sources(&self) {
        for namespace in self.iter() {
            let published = namespace
                .publish_sources(&self.prefixes)
                .and_then(|()| namespace.prune_sources(&self.prefixes));
            if let Err(error) = published {
                warn_of_sources(namespace, &error);
            }
        }
    }

    /// Checks that steering is still attached, asks for routes again, and looks which steered ports nothing listens on.
    pub fn check_and_repair(&self) {
        for namespace in self.iter() {
            if let Err(error) = namespace.repair(&self.steer_loader) {
                tracing::error!(namespace = namespace.inode(), %error, "steering not attached again");
            }
            if let Err(error) = namespace.publish_sources(&self.prefixes) {
                tracing::debug!(namespace = namespace.inode(), %error, "routes not read");
            }
        }
        for namespace in self.iter() {
            if let Err(error) = namespace.review_silent() {
                tracing::warn!(namespace = namespace.inode(), %error, "cannot list the listening sockets");
            }
        }
    }

    /// Detaches steering from namespaces, dead or alive, that are not served: none of their ports is ours.
    ///
    /// # Errors
    /// If a pin cannot be removed or a map not be written.
    pub fn detach_unserved(&self) -> io::Result<()> {
        for cookie in self.unserved()? {
            self.steer_loader.detach(cookie)?;
            self.maps.forget_namespace(cookie)?;
        }
        Ok(())
    }

    /// Removes what namespaces that are gone and connections that were never accepted have left.
    ///
    /// # Errors
    /// If a pin cannot be removed or a map not be read or written.
    pub fn sweep(&self) -> io::Result<()> {
        self.detach_unserved()?;
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        for (key, flow) in self.maps.flows.entries()? {
            if now.saturating_sub(Duration::from_nanos(flow.created_ns)) > FLOW_LIFETIME {
                self.maps.flows.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Ends the connections of these sockets, given by cookie: their owners see `ECONNABORTED` at once.
    pub fn abort(&self, cookies: &HashSet<u64>) {
        for namespace in self.iter() {
            if let Err(error) = existing::abort(namespace, cookies) {
                tracing::warn!(namespace = namespace.inode(), %error, "cannot end connections whose packets are dropped");
            }
        }
    }

    /// Has new connections come to this agent, and not to its predecessor any more.
    ///
    /// # Errors
    /// If the kernel refuses a listener.
    pub fn take_connections(&self) -> io::Result<()> {
        // First, for namespaces that are served from now on.
        self.maps.listeners.take_places();
        self.iter().try_for_each(Namespace::put_listeners)
    }

    /// Leaves the namespaces to a successor.
    pub fn hand_over(self) -> Listeners {
        let namespaces: Vec<_> = self.served.into_values().map(|served| served.namespace).collect();
        namespaces.iter().for_each(|namespace| namespace.let_go_of_steering());
        Listeners::of(namespaces)
    }

    /// Stops accepting everywhere; connections that are not accepted yet are reset.
    pub fn stop_accepting(&self) {
        self.iter().for_each(Namespace::stop_accepting);
    }
}

fn warn_of_sources(namespace: &Namespace, error: &io::Error) {
    tracing::warn!(namespace = namespace.inode(), %error, "getsockname() may show a loopback address");
}
