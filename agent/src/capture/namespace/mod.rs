//! A network namespace with workloads in it: the agent's listeners there, and the steering towards them.

mod accept;
mod dial;
pub mod existing;
pub mod listeners;
pub mod local_leg;
pub mod ports;
mod presence;
mod route;
mod silent;
mod sources;
pub mod unreachable;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use sheath_common::flow::{Flow, FlowKey, ListenerKey, ListenerKind, SteeredKey};
use sheath_common::net::{AF_INET, AF_INET6, Endpoint};
use sheath_common::workload::{NO_WORKLOAD, WorkloadId};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::capture::error::CaptureError;
use crate::capture::kernel::maps::Tables;
use crate::capture::kernel::steering::{SteerLoader, Steering};
use crate::flow::Inherited;
use crate::sys::bpf::SocketFd;
use crate::sys::netns::NetworkNamespace;
use crate::sys::sockopt;

use accept::Accepting;
use ports::InboundPorts;
use presence::Present;
use silent::LastLook;
use unreachable::Watched;

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
    /// Which listeners are open: of a kind and a family.
    listening: Mutex<HashSet<(u32, u32)>>,
    accepting: Mutex<Vec<AbortHandle>>,
    /// What the kernel has been told of the namespace's addresses.
    pub(super) own_addresses: Mutex<Option<HashSet<IpAddr>>>,
    pub(super) present: Present,
    pub(super) closed: CancellationToken,
    pub(super) watched: Watched,
    pub(super) refused: LastLook,
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
            listening: Mutex::default(),
            accepting: Mutex::new(Vec::new()),
            own_addresses: Mutex::default(),
            present: Present::default(),
            closed: CancellationToken::new(),
            watched: Watched::default(),
            refused: LastLook::default(),
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
        self.listen(starter)
            .map_err(CaptureError::during("cannot listen in a workload's network namespace"))?;
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

    /// Sets which addresses and ports go to the agent, and for which workload.
    pub fn steer(&self, ports: InboundPorts) -> io::Result<()> {
        if self.inbound.load().as_deref() == Some(&ports) {
            return Ok(());
        }
        let wanted = ports.kernel_view();
        for ((address, port), value) in &wanted {
            let key =
                SteeredKey { netns: self.cookie, address: *address, port: *port, _reserved: 0 };
            self.tables.steered.insert(&key, value)?;
        }
        for old in self.tables.steered.keys()? {
            if old.netns == self.cookie && !wanted.contains_key(&(old.address, old.port)) {
                self.tables.steered.remove(&old)?;
            }
        }
        self.inbound.store(Some(Arc::new(ports)));
        self.ports_known.notify_waiters();
        self.forget_silent()
    }

    /// Ports that workloads of this namespace have declared.
    pub(super) fn declared_ports(&self) -> HashSet<u16> {
        self.inbound.load().iter().flat_map(|ports| ports.declared()).collect()
    }

    /// Stops accepting; connections that are not accepted yet are reset.
    pub fn stop_accepting(&self) {
        for task in self.accepting.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
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

    /// Opens the listeners that are not open yet. A family that the namespace does not have is left out, until it has
    /// it: the kernel refuses its connections meanwhile.
    pub fn listen(self: &Arc<Self>, starter: &Arc<dyn FlowStarter>) -> io::Result<()> {
        let families =
            [(AF_INET, IpAddr::from(Ipv4Addr::LOCALHOST)), (AF_INET6, Ipv6Addr::LOCALHOST.into())];
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in [ListenerKind::Outbound, ListenerKind::Inbound] {
            for (family, address) in families {
                if listening.contains(&(kind as u32, family)) {
                    continue;
                }
                match self.netns.run(|| listening_socket(address)) {
                    Ok(socket) => self.accept_from(socket, kind, family, starter)?,
                    Err(error) if is_family_missing(&error) => continue,
                    Err(error) => return Err(error),
                }
                listening.insert((kind as u32, family));
            }
        }
        Ok(())
    }

    fn accept_from(
        self: &Arc<Self>,
        listener: Socket,
        kind: ListenerKind,
        family: u32,
        starter: &Arc<dyn FlowStarter>,
    ) -> io::Result<()> {
        let key = ListenerKey { netns: self.cookie, kind: kind as u32, family };
        self.tables.own_listeners.insert(&SocketFd(listener.as_raw_fd() as u32), &0)?;
        self.tables.listeners.insert(&key, &SocketFd(listener.as_raw_fd() as u32))?;
        let runtime = starter.runtime();
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener.into())?
        };
        let accepting = Accepting::new(self.clone(), listener, starter.clone());
        let task = runtime.spawn(accepting.run(kind));
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
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
        let Some(place) = Endpoint::from(local).agents_place() else {
            return Ok(None);
        };
        let app = Endpoint::from(app);
        let key = FlowKey { netns: self.cookie, address: app.address, port: app.port, place };
        let Some(flow) = self.tables.flows.get(&key)? else {
            return Ok(None);
        };
        self.tables.flows.remove(&key)?;
        Ok(Some(flow).filter(|flow| flow.workload != NO_WORKLOAD))
    }

    /// Id of the cgroup whose listening sockets may stand for a workload's, or zero.
    pub(super) fn activator(&self, workload: WorkloadId) -> u64 {
        let ports = self.inbound.load();
        ports.as_ref().and_then(|ports| ports.activator(workload)).unwrap_or_default()
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
        let owner = self.inbound.load().as_ref().and_then(|ports| ports.owner(destination));
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
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    sockopt::prepare_leg(&socket)?;
    socket.bind(&SocketAddr::new(address, 0).into())?;
    // For the connections it accepts, which inherit it: they sit on the application's own port, and what is left
    // of them must not keep the application from binding that again.
    socket.set_reuse_address(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// True if the namespace does not have the family, or its loopback interface not yet the address.
fn is_family_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}
