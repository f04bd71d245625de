//! The state of a network namespace: its listeners, its steering, and who owns its ports.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use ipnet::IpNet;
use sheath_common::flow::SteeredKey;
use sheath_common::workload::WorkloadId;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::ports::InboundPorts;
use super::presence::Presence;
use super::silent::SilentPorts;
use super::sources::Sources;
use super::watched::Watched;
use crate::capture::kernel::maps::Maps;
use crate::capture::kernel::steering::Steering;
use crate::sys::netns::NetworkNamespace;

/// A namespace that is served.
#[derive(Debug)]
pub struct Namespace {
    pub(super) netns: NetworkNamespace,
    /// The kernel's cookie of it: its key in the maps.
    pub(super) cookie: u64,
    pub(super) maps: Arc<Maps>,
    /// Where the search for a free port for the next local leg begins.
    pub(super) next_port: AtomicU32,
    /// Who owns its ports; `None` until that is known, which connections wait for.
    ports: ArcSwapOption<InboundPorts>,
    /// Wakes those who wait for `ports`.
    ports_known: Notify,
    /// Its `sk_lookup` program; `None` until it is attached.
    steering: Mutex<Option<Steering>>,
    listeners: Mutex<Listeners>,
    /// Cancelled when the namespace is no longer served.
    pub(super) closed: CancellationToken,
    /// Which workloads are in it.
    presence: Presence,
    /// Its own addresses, and from which of them connections leave.
    sources: Sources,
    /// Steered ports on which nothing listens.
    silent: SilentPorts,
    /// Unreachable destinations that are dialled again.
    pub(super) watched: Watched,
}

/// The agent's own listeners in a namespace.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// Those that are open, by kind and family. Whoever accepts owns them.
    pub open: HashMap<(u32, u32), Weak<TcpListener>>,
    /// The tasks that accept from them.
    pub accepting: Vec<AbortHandle>,
}

impl Namespace {
    /// One in which nothing has been opened yet.
    pub(super) fn new(netns: NetworkNamespace, cookie: u64, maps: Arc<Maps>) -> Self {
        let closed = CancellationToken::new();
        Self {
            next_port: AtomicU32::new(0),
            ports: ArcSwapOption::empty(),
            ports_known: Notify::new(),
            steering: Mutex::default(),
            listeners: Mutex::default(),
            presence: Presence::until(closed.clone()),
            closed,
            sources: Sources::of(netns.clone(), cookie, maps.clone()),
            silent: SilentPorts::of(netns.clone(), cookie, maps.clone()),
            watched: Watched::default(),
            netns,
            cookie,
            maps,
        }
    }

    #[must_use]
    pub fn netns(&self) -> &NetworkNamespace {
        &self.netns
    }

    #[must_use]
    pub fn inode(&self) -> u64 {
        self.netns.inode()
    }

    #[must_use]
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    #[must_use]
    pub fn is_agents_own(&self) -> bool {
        self.netns.is_own()
    }

    /// True if the kernel says that connections to this namespace's ports go to the agent.
    #[must_use]
    pub fn is_steered(&self) -> bool {
        self.steering().as_ref().is_some_and(|steering| steering.is_in_force(self.inode()))
    }

    pub(super) fn steering(&self) -> MutexGuard<'_, Option<Steering>> {
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets which addresses and ports go to the agent, and for which workload.
    ///
    /// # Errors
    /// If a map cannot be read or written. What was in force before still is, as far as it has not been replaced.
    pub fn steer(&self, ports: InboundPorts) -> io::Result<()> {
        if self.ports.load().as_deref() == Some(&ports) {
            return Ok(());
        }
        match ports.rest() {
            Some(workload) => self.maps.probes.owners.insert(&self.cookie, &workload)?,
            None => self.maps.probes.owners.remove(&self.cookie).map(drop)?,
        }
        let wanted = ports.kernel_view();
        for ((address, port), value) in &wanted {
            let key =
                SteeredKey { netns: self.cookie, address: *address, port: *port, _reserved: 0 };
            self.maps.steered.insert(&key, value)?;
        }
        for old in self.maps.steered.keys()? {
            if old.netns == self.cookie && !wanted.contains_key(&(old.address, old.port)) {
                self.maps.steered.remove(&old)?;
            }
        }
        let declared = ports.declared();
        self.ports.store(Some(Arc::new(ports)));
        self.ports_known.notify_waiters();
        self.silent.keep_only(&declared)
    }

    /// Waits until it is known whose the ports are.
    pub(super) async fn ports_known(&self) {
        loop {
            let known = self.ports_known.notified();
            if self.ports.load().is_some() {
                return;
            }
            known.await;
        }
    }

    /// The workload for which the agent takes connections to an address and port.
    pub(super) fn owner(&self, at: SocketAddr) -> Option<WorkloadId> {
        self.ports.load().as_ref().and_then(|ports| ports.owner(at))
    }

    /// Id of the cgroup whose listening sockets may stand for a workload's, or zero.
    pub(super) fn activator(&self, workload: WorkloadId) -> u64 {
        let ports = self.ports.load();
        ports.as_ref().and_then(|ports| ports.activator(workload)).unwrap_or_default()
    }

    /// A local application has refused a connection: perhaps nothing listens on its port any more.
    pub fn note_refused(&self, port: u16) {
        self.silent.note_refused(port);
    }

    /// Looks which of the declared ports nothing listens on, and whether those that were silent still are.
    ///
    /// # Errors
    /// If the sockets cannot be listed or the map not be written; what was known stays.
    pub fn review_silent(&self) -> io::Result<()> {
        let declared = self.ports.load().iter().flat_map(|ports| ports.declared()).collect();
        self.silent.review(&declared)
    }

    /// Cancelled when the workload has left the namespace, or the namespace is no longer served.
    #[must_use]
    pub fn presence(&self, workload: WorkloadId) -> CancellationToken {
        self.presence.of(workload)
    }

    /// The workload has left. If it comes again, that is another stay.
    pub fn leave(&self, workload: WorkloadId) {
        self.presence.end(workload);
    }

    /// Tells the kernel which addresses are the namespace's own, and from which address connections leave, by default
    /// and to each of these prefixes: so `getsockname()` can say it before the wire leg exists.
    ///
    /// # Errors
    /// If the addresses cannot be read or the maps not be written.
    pub fn publish_sources(&self, prefixes: &[IpNet]) -> io::Result<()> {
        self.sources.publish(prefixes)
    }

    /// Forgets what [`Self::publish_sources`] has told about other prefixes than these.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn prune_sources(&self, prefixes: &[IpNet]) -> io::Result<()> {
        self.sources.prune(prefixes)
    }
}
