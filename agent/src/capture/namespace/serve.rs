//! Opening and closing a namespace: its listeners, its steering, and the kernel's knowledge of both.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sheath_common::flow::{ListenerKey, ListenerKind};
use sheath_common::net::{AF_INET, AF_INET6};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::accept::{Accepting, FlowStarter};
use super::local_ports::beginning;
use super::state::Namespace;
use crate::capture::error::CaptureError;
use crate::capture::kernel::maps::Maps;
use crate::capture::kernel::steering::SteerLoader;
use crate::sys::bpf::SocketFd;
use crate::sys::netns::NetworkNamespace;
use crate::sys::sockopt;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

impl Namespace {
    /// Opens the listeners, attaches the steering and tells the kernel that the namespace is served. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// If any of it fails; then nothing of it stays.
    pub fn open(
        netns: NetworkNamespace,
        maps: Arc<Maps>,
        loader: &SteerLoader,
        starter: &Arc<dyn FlowStarter>,
    ) -> Result<Arc<Self>, CaptureError> {
        let cookie =
            netns.cookie().map_err(CaptureError::during("cannot tell network namespaces apart"))?;
        let used = maps
            .clients
            .ports_in(cookie)
            .map_err(CaptureError::during("cannot read which connections there are"))?;
        let namespace = Self::new(netns, cookie, maps);
        namespace.next_port.store(beginning(used), Ordering::Relaxed);
        let namespace = Arc::new(namespace);
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
        self.maps
            .namespaces
            .insert(&self.cookie, &0)
            .map_err(CaptureError::during("cannot tell the kernel of a network namespace"))
    }

    /// Attaches the steering again if somebody has removed it.
    ///
    /// # Errors
    /// If it cannot be attached; until it is, connections to steered ports come to the workload's own listeners, where
    /// the ingress guard drops them.
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

    /// Opens the listeners that are not open yet. A family that the namespace does not have is left out until it has
    /// it: the kernel refuses its connections meanwhile.
    ///
    /// # Errors
    /// If a listener cannot be opened for another reason. Those before it stay open.
    pub fn listen(self: &Arc<Self>, starter: &Arc<dyn FlowStarter>) -> io::Result<()> {
        let families =
            [(AF_INET, IpAddr::from(Ipv4Addr::LOCALHOST)), (AF_INET6, Ipv6Addr::LOCALHOST.into())];
        let mut listeners = self.listeners();
        for kind in [ListenerKind::Outbound, ListenerKind::Inbound] {
            for (family, address) in families {
                if listeners.open.contains_key(&(kind as u32, family)) {
                    continue;
                }
                let socket = match self.netns.run(|| listening_socket(address)) {
                    Ok(socket) => socket,
                    Err(error) if is_family_missing(&error) => continue,
                    Err(error) => return Err(error),
                };
                let fd = SocketFd(socket.as_raw_fd() as u32);
                self.maps.own_listeners.insert(&fd, &0)?;
                self.maps.listeners.add(&self.listener_key(kind as u32, family), fd)?;
                let runtime = starter.runtime();
                let listener = {
                    let _entered = runtime.enter();
                    Arc::new(TcpListener::from_std(socket.into())?)
                };
                listeners.open.insert((kind as u32, family), Arc::downgrade(&listener));
                let accepting = Accepting::new(self.clone(), listener, starter.clone());
                listeners.accepting.push(runtime.spawn(accepting.run(kind)).abort_handle());
            }
        }
        Ok(())
    }

    /// Has all new connections come to the listeners, whoever else has some.
    ///
    /// # Errors
    /// If the kernel refuses one; those before it are in place.
    pub fn put_listeners(&self) -> io::Result<()> {
        for ((kind, family), listener) in &self.listeners().open {
            if let Some(listener) = listener.upgrade() {
                let fd = SocketFd(listener.as_raw_fd() as u32);
                self.maps.listeners.put(&self.listener_key(*kind, *family), fd)?;
            }
        }
        Ok(())
    }

    fn listener_key(&self, kind: u32, family: u32) -> ListenerKey {
        ListenerKey { netns: self.cookie, kind, family }
    }

    /// Leaves the steering to a successor: what is pinned stays in force, and goes when the successor removes it.
    pub fn let_go_of_steering(&self) {
        drop(self.steering().take());
    }

    /// Stops accepting; connections that are not accepted yet are reset.
    pub fn stop_accepting(&self) {
        for task in self.listeners().accepting.drain(..) {
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
        if let Err(error) = self.maps.forget_namespace(self.cookie) {
            tracing::warn!(namespace = self.inode(), %error, "entries of a closed namespace stay in the maps");
        }
    }
}

/// A listener on a port of the kernel's choice: `sk_lookup` hands it connections to other addresses. Accepted connections
/// inherit its options.
fn listening_socket(address: IpAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(SocketAddr::new(address, 0)),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    sockopt::prepare_leg(&socket)?;
    socket.bind(&SocketAddr::new(address, 0).into())?;
    // For the connections it accepts: they are on the application's own port, and their remains must not keep the
    // application from binding it again.
    socket.set_reuse_address(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// True if the namespace does not have the family, or its loopback interface not yet the address.
fn is_family_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}
