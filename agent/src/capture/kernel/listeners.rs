//! The map of the sockets that the kernel turns connections to.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sheath_common::flow::ListenerKey;

use crate::sys::bpf::{SocketFd, Table};

/// One socket for each namespace, direction and family. A socket that is closed is no longer in it.
#[derive(Debug)]
pub struct ListenerMap {
    table: Table<ListenerKey, SocketFd>,
    /// Sockets of a predecessor stay for now.
    leaves_others: AtomicBool,
}

impl ListenerMap {
    /// # Errors
    /// `InvalidData` if the map has another shape.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { table: Table::open(path)?, leaves_others: AtomicBool::new(false) })
    }

    /// Leaves the places of a predecessor to it, until [`Self::take_places`].
    pub fn leave_others(&self) {
        self.leaves_others.store(true, Ordering::Relaxed);
    }

    /// From now on, whatever is [added](Self::add) is what connections come to.
    pub fn take_places(&self) {
        self.leaves_others.store(false, Ordering::Relaxed);
    }

    /// Adds a socket. A predecessor's has its place as long as places are left to it.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn add(&self, key: &ListenerKey, socket: SocketFd) -> io::Result<()> {
        if !self.leaves_others.load(Ordering::Relaxed) {
            return self.put(key, socket);
        }
        match self.table.insert_new(key, &socket) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    /// Puts a socket in the place of whatever has it, in one step.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn put(&self, key: &ListenerKey, socket: SocketFd) -> io::Result<()> {
        self.table.insert(key, &socket)
    }
}
