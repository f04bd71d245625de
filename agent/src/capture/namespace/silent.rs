//! Steered ports on which nothing listens. There the kernel refuses a SYN as it would without the agent: a connection
//! that the agent accepts and then resets would tell health checks and load balancers that the server lives.
//!
//! `listen()` ends it in the kernel at once, so the agent may be late only in noticing that a port has fallen silent.

use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sheath_common::flow::{ASKED, SILENT, SilentKey};

use super::Namespace;
use crate::sys::sock_diag::SockDiag;

/// Pause between two looks that refused connections give rise to.
const PAUSE: Duration = Duration::from_millis(500);

/// When a refused connection last gave rise to a look.
#[derive(Debug, Default)]
pub struct LastLook(Mutex<Option<Instant>>);

impl LastLook {
    fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

impl Namespace {
    /// A local application has refused a connection: perhaps nothing listens on its port any more.
    pub fn note_refused(&self, port: u16) {
        if self.refused.is_due()
            && let Err(error) = self.mark_silent(&HashSet::from([port]))
        {
            tracing::warn!(namespace = self.inode(), port, %error, "cannot look who listens");
        }
    }

    /// Looks which of the declared ports nothing listens on, and whether those that were silent still are.
    ///
    /// # Errors
    /// If the sockets cannot be listed or the map not be written; what was known stays.
    pub fn review_silent(&self) -> io::Result<()> {
        let ports = self.declared_ports();
        if ports.is_empty() { Ok(()) } else { self.mark_silent(&ports) }
    }

    /// Marks those of the ports that nothing listens on, and no others. `listen()` takes away what it finds, so there is
    /// something to find before the look, and the mark is made of nothing else.
    fn mark_silent(&self, ports: &HashSet<u16>) -> io::Result<()> {
        let silent = &self.tables.silent;
        for port in ports {
            match silent.insert_new(&self.silent_key(*port), &ASKED) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let listening = self.listening()?;
        for port in ports {
            let key = self.silent_key(*port);
            match listening.contains(port) {
                true => silent.remove(&key)?,
                false => silent.replace(&key, &SILENT)?,
            };
        }
        Ok(())
    }

    /// Forgets the ports that are nobody's any more.
    pub(super) fn forget_silent(&self) -> io::Result<()> {
        let declared = self.declared_ports();
        for key in self.tables.silent.keys()? {
            if key.netns == self.cookie && !declared.contains(&(key.port as u16)) {
                self.tables.silent.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Ports that anything in the namespace listens on, at whatever address.
    fn listening(&self) -> io::Result<HashSet<u16>> {
        let listeners = self.netns.run(|| SockDiag::open()?.tcp_listeners())?;
        Ok(listeners.iter().map(|socket| socket.local.port()).collect())
    }

    fn silent_key(&self, port: u16) -> SilentKey {
        SilentKey { netns: self.cookie, port: port.into(), _reserved: 0 }
    }
}
