//! Steered ports on which nothing listens. There the kernel refuses a SYN as it would without the agent: a connection
//! that the agent accepts and then resets would tell health checks and load balancers that the server lives.
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

/// Pause between two looks that refused connections give rise to.
const PAUSE: Duration = Duration::from_millis(500);

/// The silent ports of one namespace.
#[derive(Debug)]
pub struct SilentPorts {
    netns: NetworkNamespace,
    cookie: u64,
    maps: Arc<Maps>,
    /// When a refused connection last gave rise to a look.
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
    pub fn review(&self, declared: &HashSet<u16>) -> io::Result<()> {
        if declared.is_empty() { Ok(()) } else { self.mark(declared) }
    }

    /// Marks those of the ports that nothing listens on, and no others. `listen()` takes away what it finds, so there is
    /// something to find before the look, and the mark is made of nothing else.
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

    /// Forgets all other ports than these, which are nobody's any more.
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
