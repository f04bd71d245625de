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

/// Refused connections trigger at most this many checks in the time below: several in a row where a server goes down, comes up
/// and goes down again.
const LOOKS: usize = 4;
const WITHIN: Duration = Duration::from_secs(2);

/// The silent ports of one namespace.
#[derive(Debug)]
pub struct SilentPorts {
    netns: NetworkNamespace,
    cookie: u64,
    maps: Arc<Maps>,
    looks: Mutex<Looks>,
}

/// When refused connections triggered the last checks.
#[derive(Debug, Default)]
struct Looks(Vec<Instant>);

impl Looks {
    /// True if another check may be made now. It is then counted.
    fn take(&mut self, now: Instant) -> bool {
        self.0.retain(|look| now.saturating_duration_since(*look) < WITHIN);
        let is_due = self.0.len() < LOOKS;
        if is_due {
            self.0.push(now);
        }
        is_due
    }
}

impl SilentPorts {
    pub fn of(netns: NetworkNamespace, cookie: u64, maps: Arc<Maps>) -> Self {
        Self { netns, cookie, maps, looks: Mutex::default() }
    }

    /// A local application has refused a connection to this port.
    pub fn note_refused(&self, port: u16) {
        if self.is_due()
            && let Err(error) = self.mark(&HashSet::from([port]))
        {
            tracing::warn!(namespace = self.netns.inode(), port, %error, "cannot list the listening sockets");
        }
    }

    fn is_due(&self) -> bool {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_goes_down_again_at_once_is_looked_at_again_and_not_without_end() {
        let begun = Instant::now();
        let mut looks = Looks::default();
        let taken = (0..10).filter(|_| looks.take(begun)).count();
        assert_eq!(taken, LOOKS);
        assert!(!looks.take(begun + WITHIN / 2));
        assert!(looks.take(begun + WITHIN));
    }
}
