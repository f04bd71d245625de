//! A network namespace with workloads in it: the agent's listeners there, and the steering towards them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use ipnet::IpNet;
use sheath_common::flow::{Flow, FlowKey, ListenerKey, ListenerKind, SteeredKey};
use sheath_common::net::{AF_INET, AF_INET6, AGENT_PORT, Address, Endpoint};
use sheath_common::workload::{NO_WORKLOAD, WorkloadId};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::accept::Accepting;
use super::programs::{SteerLoader, Steering};
use super::route::route_source;
use super::{CaptureError, Tables};
use crate::flow::Inherited;
use crate::policy::mapped_length;
use crate::sys::bpf::SocketFd;
use crate::sys::netns::NetworkNamespace;
use crate::sys::sockopt;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A connection that a workload opened, and what the kernel recorded about it.
#[derive(Debug)]
pub struct AcceptedOutbound {
    pub stream: TcpStream,
    /// The application's end; loopback unless the application had bound its socket.
    pub app: SocketAddr,
    pub destination: SocketAddr,
    pub workload: WorkloadId,
    pub inherited: Inherited,
}

/// A connection that the network opened to a workload.
#[derive(Debug)]
pub struct AcceptedInbound {
    pub stream: TcpStream,
    pub client: SocketAddr,
    pub destination: SocketAddr,
    pub workload: WorkloadId,
}

/// What happens to accepted connections: the other stages, as capture sees them. Must return at once.
pub trait FlowStarter: std::fmt::Debug + Send + Sync {
    /// Where the next listener should be waited on.
    fn runtime(&self) -> Handle;
    fn outbound(&self, namespace: Arc<Namespace>, accepted: AcceptedOutbound);
    fn inbound(&self, namespace: Arc<Namespace>, accepted: AcceptedInbound);
    /// A connection that belongs to no workload; it has been reset.
    fn stranger(&self, namespace: &Namespace, kind: ListenerKind, remote: SocketAddr);
    /// A connection for which there was no descriptor; it has been reset.
    fn shed(&self, namespace: &Namespace);
}

/// A namespace that is served.
#[derive(Debug)]
pub struct Namespace {
    pub(super) netns: NetworkNamespace,
    pub(super) cookie: u64,
    pub(super) tables: Arc<Tables>,
    /// Where the search for a free port for the next local leg begins.
    pub(super) next_port: AtomicU32,
    /// `None` until it is first known whose the ports are; connections wait for it.
    inbound: ArcSwapOption<InboundPorts>,
    ports_known: Notify,
    steering: Mutex<Option<Steering>>,
    accepting: Mutex<Vec<AbortHandle>>,
    closed: CancellationToken,
}

/// Whose a port is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboundPorts {
    declared: HashMap<u16, WorkloadId>,
    /// The workload that has every port that is not declared.
    rest: Option<WorkloadId>,
}

impl InboundPorts {
    /// Gives ports to a workload; an empty list stands for every port.
    ///
    /// # Errors
    /// If another workload has one of them.
    pub fn claim(&mut self, workload: WorkloadId, ports: &[u16]) -> Result<(), String> {
        if ports.is_empty() {
            return match self.rest {
                Some(other) if other != workload => {
                    Err("another workload has every port of this network namespace".to_owned())
                }
                _ => {
                    self.rest = Some(workload);
                    Ok(())
                }
            };
        }
        if let Some(port) = ports
            .iter()
            .find(|port| self.declared.get(*port).is_some_and(|other| *other != workload))
        {
            return Err(format!("another workload has port {port} of this network namespace"));
        }
        self.declared.extend(ports.iter().map(|port| (*port, workload)));
        Ok(())
    }

    fn owner(&self, port: u16) -> Option<WorkloadId> {
        self.declared.get(&port).copied().or(self.rest)
    }
}

impl Namespace {
    /// Opens the listeners, attaches the steering and tells the kernel that the namespace is served. Needs a
    /// tokio runtime.
    pub fn open(
        netns: NetworkNamespace,
        tables: Arc<Tables>,
        loader: &SteerLoader,
        starter: &Arc<dyn FlowStarter>,
    ) -> Result<Arc<Self>, CaptureError> {
        let cookie =
            netns.cookie().map_err(CaptureError::during("cannot tell network namespaces apart"))?;
        let namespace = Arc::new(Self {
            netns,
            cookie,
            tables,
            next_port: AtomicU32::new(0),
            inbound: ArcSwapOption::empty(),
            ports_known: Notify::new(),
            steering: Mutex::new(None),
            accepting: Mutex::new(Vec::new()),
            closed: CancellationToken::new(),
        });
        match namespace.bring_up(loader, starter) {
            Ok(()) => Ok(namespace),
            Err(error) => {
                namespace.close();
                Err(error)
            }
        }
    }

    fn bring_up(
        self: &Arc<Self>,
        loader: &SteerLoader,
        starter: &Arc<dyn FlowStarter>,
    ) -> Result<(), CaptureError> {
        for kind in [ListenerKind::Outbound, ListenerKind::Inbound] {
            self.listen(kind, starter)
                .map_err(CaptureError::during("cannot listen in a workload's network namespace"))?;
        }
        let steering = loader.attach(self.netns.as_fd(), self.cookie)?;
        *self.steering() = Some(steering);
        // Last: from here on the kernel turns connections to the listeners.
        self.tables
            .namespaces
            .insert(&self.cookie, &0)
            .map_err(CaptureError::during("cannot tell the kernel of a network namespace"))
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

    /// True if what the network opens to this namespace's ports really goes to the agent.
    #[must_use]
    pub fn is_steered(&self) -> bool {
        self.steering().as_ref().is_some_and(|steering| steering.is_in_force(self.inode()))
    }

    /// Attaches the steering again if somebody has removed it.
    pub fn repair(&self, loader: &SteerLoader) -> Result<(), CaptureError> {
        if !self.is_steered() {
            tracing::warn!(
                namespace = self.inode(),
                "sk_lookup program or pin removed behind the agent's back; putting it back"
            );
            *self.steering() = Some(loader.attach(self.netns.as_fd(), self.cookie)?);
        }
        Ok(())
    }

    /// Sets which ports go to the agent, and for which workload.
    pub fn steer(&self, ports: InboundPorts) -> io::Result<()> {
        if self.inbound.load().as_deref() == Some(&ports) {
            return Ok(());
        }
        let mut wanted: Vec<u32> = ports.declared.keys().map(|port| u32::from(*port)).collect();
        wanted.extend(ports.rest.map(|_| 0));
        let key = |port| SteeredKey { netns: self.cookie, port, _reserved: 0 };
        for port in &wanted {
            self.tables.steered.insert(&key(*port), &0)?;
        }
        for old in self.tables.steered.keys()? {
            if old.netns == self.cookie && !wanted.contains(&old.port) {
                self.tables.steered.remove(&old)?;
            }
        }
        self.inbound.store(Some(Arc::new(ports)));
        self.ports_known.notify_waiters();
        Ok(())
    }

    /// Tells the kernel from which address connections leave, by default and to each known prefix, so that
    /// `getsockname()` can say it before the wire leg exists.
    pub fn publish_sources(&self, prefixes: &[IpNet]) -> io::Result<()> {
        let defaults = [
            IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
            IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
        ];
        let routed = self.netns.run(|| {
            let anybody = Inherited::default();
            let source = |prefix: &IpNet| route_source(probe_address(prefix), &anybody).ok();
            Ok(defaults
                .iter()
                .chain(prefixes)
                .filter_map(|prefix| source(prefix).map(|source| (*prefix, source)))
                .collect::<Vec<_>>())
        })?;
        for (prefix, source) in routed {
            let length = u32::from(mapped_length(&prefix));
            self.tables.set_source(self.cookie, length, prefix.addr().into(), source.into())?;
        }
        Ok(())
    }

    /// Forgets what [`Self::publish_sources`] has told about other prefixes than these.
    pub fn prune_sources(&self, prefixes: &[IpNet]) -> io::Result<()> {
        let defaults = [
            IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
            IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
        ];
        let entry = |prefix: &IpNet| (u32::from(mapped_length(prefix)), prefix.addr().into());
        let wanted = defaults.iter().chain(prefixes).map(entry).collect();
        self.tables.prune_sources(self.cookie, &wanted)
    }

    /// Stops accepting; connections that are not accepted yet are reset.
    pub fn stop_accepting(&self) {
        for task in self.accepting.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    /// Tells when the namespace is let go: sockets that are of no use to anybody then keep it alive.
    #[must_use]
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Lets go of a namespace that has no workload any more.
    pub fn close(&self) {
        self.stop_accepting();
        self.closed.cancel();
        if let Some(steering) = self.steering().take() {
            steering.detach();
        }
        if let Err(error) = self.tables.forget_namespace(self.cookie) {
            tracing::warn!(namespace = self.inode(), %error, "traces of a closed namespace stay in the maps");
        }
    }

    fn steering(&self) -> std::sync::MutexGuard<'_, Option<Steering>> {
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the listeners of one kind. A family that the namespace does not have is left out: the kernel
    /// then refuses its connections.
    fn listen(
        self: &Arc<Self>,
        kind: ListenerKind,
        starter: &Arc<dyn FlowStarter>,
    ) -> io::Result<()> {
        for (family, address) in
            [(AF_INET, IpAddr::from(Ipv4Addr::LOCALHOST)), (AF_INET6, Ipv6Addr::LOCALHOST.into())]
        {
            let listener = match self.netns.run(|| listening_socket(address)) {
                Ok(listener) => listener,
                Err(_) if family == AF_INET6 => continue,
                Err(error) => return Err(error),
            };
            let key = ListenerKey { netns: self.cookie, kind: kind as u32, family };
            self.tables.listeners.insert(&key, &SocketFd(listener.as_raw_fd() as u32))?;
            let runtime = starter.runtime();
            let listener = {
                let _entered = runtime.enter();
                TcpListener::from_std(listener.into())?
            };
            let accepting = Accepting::new(self.clone(), listener, starter.clone());
            let task = runtime.spawn(accepting.run(kind));
            self.accepting.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
        }
        Ok(())
    }

    /// What an accepted connection of an application is, if it is one.
    pub(super) fn identify_outbound(
        &self,
        stream: TcpStream,
        app: SocketAddr,
    ) -> io::Result<Option<AcceptedOutbound>> {
        let flow = self.take_flow(stream.local_addr()?, app)?;
        Ok(flow.map(|flow| AcceptedOutbound {
            stream,
            app,
            destination: flow.destination.into(),
            workload: flow.workload,
            inherited: Inherited { owner: flow.owner, asked: flow.asked },
        }))
    }

    /// Takes what the kernel recorded about a connection from `app`, accepted at `local`. Only for those to exactly
    /// the address that `connect()` is turned to: whoever finds another way to this listener could otherwise come
    /// with the source of somebody else's connection. And only in the order of `accept()`: an entry stands for the
    /// oldest connection of its source that waits.
    pub(super) fn take_flow(&self, local: SocketAddr, app: SocketAddr) -> io::Result<Option<Flow>> {
        let local = Endpoint::from(local);
        let is_turned =
            local.address == Address::LOOPBACK_V4 || local.address == Address::LOOPBACK_V6;
        if !is_turned || local.port != u32::from(AGENT_PORT) {
            return Ok(None);
        }
        let endpoint = Endpoint::from(app);
        let key = FlowKey {
            netns: self.cookie,
            address: endpoint.address,
            port: endpoint.port,
            _reserved: 0,
        };
        let Some(flow) = self.tables.flows.get(&key)? else {
            return Ok(None);
        };
        self.tables.flows.remove(&key)?;
        Ok(Some(flow).filter(|flow| flow.workload != NO_WORKLOAD))
    }

    /// What is steered here never comes to a loopback address: a connection to one has found the listener
    /// itself.
    pub(super) fn identify_inbound(
        &self,
        stream: TcpStream,
        client: SocketAddr,
    ) -> io::Result<Option<AcceptedInbound>> {
        let local = stream.local_addr()?;
        let destination = SocketAddr::new(local.ip().to_canonical(), local.port());
        if destination.ip().is_loopback() {
            return Ok(None);
        }
        let owner = self.inbound.load().as_ref().and_then(|ports| ports.owner(destination.port()));
        Ok(owner.map(|workload| AcceptedInbound { stream, client, destination, workload }))
    }

    /// Waits until it is known whose the ports are.
    pub(super) async fn ports_known(&self) {
        loop {
            let known = self.ports_known.notified();
            if self.inbound.load().is_some() {
                return;
            }
            known.await;
        }
    }
}

/// A listener on a port of the kernel's choice: `sk_lookup` hands it what is meant for other addresses. What
/// it accepts inherits its options.
fn listening_socket(address: IpAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(SocketAddr::new(address, 0)),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    sockopt::prepare_leg(&socket)?;
    socket.bind(&SocketAddr::new(address, 0).into())?;
    // For the connections it accepts, which inherit it: they sit on the application's own port, and what is left
    // of them must not keep the application from binding that again.
    socket.set_reuse_address(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// An address in a prefix to look the route up with; the first may be a broadcast address.
fn probe_address(prefix: &IpNet) -> IpAddr {
    match prefix {
        // Addresses that belong to nobody in particular (RFC 5737, RFC 3849) stand for "anywhere".
        IpNet::V4(net) if net.prefix_len() == 0 => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpNet::V6(net) if net.prefix_len() == 0 => {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
        }
        _ => prefix.hosts().next().unwrap_or_else(|| prefix.addr()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_one_owner() {
        let mut ports = InboundPorts::default();
        ports.claim(1, &[80, 443]).unwrap();
        ports.claim(1, &[80]).unwrap();
        assert!(ports.claim(2, &[81, 80]).is_err());
        assert_eq!(ports.owner(81), None);
        ports.claim(2, &[]).unwrap();
        assert!(ports.claim(3, &[]).is_err());
        assert_eq!(ports.owner(80), Some(1));
        assert_eq!(ports.owner(81), Some(2));
    }

    #[test]
    fn routes_are_looked_up_with_a_host_of_the_prefix() {
        assert_eq!(probe_address(&"10.0.2.0/24".parse().unwrap()), IpAddr::from([10, 0, 2, 1]));
        assert_eq!(probe_address(&"10.0.2.7/32".parse().unwrap()), IpAddr::from([10, 0, 2, 7]));
    }
}
