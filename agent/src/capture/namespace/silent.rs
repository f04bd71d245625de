//! Steered ports on which nothing listens. There the kernel refuses a SYN as it would without the agent. If the agent
//! accepted the connection and then reset it, health checks and load balancers would believe that the server lives.
//!
//! `listen()` ends it in the kernel at once, so the agent may be late only in noticing that a port has fallen silent.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sheath_common::flow::{ASKED, SILENT, SilentKey};

use crate::capture::kernel::maps::Maps;
use crate::sys::netns::NetworkNamespace;
use crate::sys::sock_diag::SockDiag;

/// Pause between two looks because of refused connections.
const PAUSE: Duration = Duration::from_millis(500);

/// The silent ports of one namespace.
#[derive(Debug)]
pub struct SilentPorts {
    netns: NetworkNamespace,
    cookie: u64,
    maps: Arc<Maps>,
    /// When there was last a look because of a refused connection.
    looked: Mutex<Option<Instant>>,
}

impl SilentPorts {
    pub fn of(netns: NetworkNamespace, cookie: u64, maps: Arc<Maps>) -> Self {
        Self { netns, cookie, maps, looked: Mutex::default() }
    }

    /// A local application has refused a connection to this port.
    pub fn note_refused(&self, port: u16) {
        if self.is_due()
            && let Err(error) = self.mark(&HashSet::from([port]))
        {
            tracing::warn!(namespace = self.netns.inode(), port, %error, "cannot look who listens");
        }
    }

    fn is_due(&self) -> bool {
        let mut last = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }

    /// Looks which of the declared ports nothing listens on, and whether those that were silent still are.
    ///
    /// # Errors
    /// If the sockets cannot be listed or the map not be written.
    pub fn review(&self, declared: &HashSet<u16>) -> io::Result<()> {
        if declared.is_empty() { Ok(()) } else { self.mark(declared) }
    }

    /// Marks those of the ports that nothing listens on, and no others. A `listen()` that comes in between must not be
    /// missed: it removes the entry of its port. So an entry is made before the look, and only replaced afterwards.
    fn mark(&self, ports: &HashSet<u16>) -> io::Result<()> {
        let silent = &self.maps.silent;
        for port in ports {
            match silent.insert_new(&self.key(*port), &ASKED) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let listening = self.listening()?;
        for port in ports {
            let key = self.key(*port);
            match listening.contains(port) {
                true => silent.remove(&key)?,
                false => silent.replace(&key, &SILENT)?,
            };
        }
        Ok(())
    }

    /// Forgets all other ports than these, which no workload declares any more.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn keep_only(&self, declared: &HashSet<u16>) -> io::Result<()> {
        for key in self.maps.silent.keys()? {
            if key.netns == self.cookie && !declared.contains(&(key.port as u16)) {
                self.maps.silent.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Ports that anything in the namespace listens on, at whatever address.
    fn listening(&self) -> io::Result<HashSet<u16>> {
        let listeners = self.netns.run(|| SockDiag::open()?.tcp_listeners())?;
        Ok(listeners.iter().map(|socket| socket.local.port()).collect())
    }

    fn key(&self, port: u16) -> SilentKey {
        SilentKey { netns: self.cookie, port: port.into(), _reserved: 0 }
    }
}
