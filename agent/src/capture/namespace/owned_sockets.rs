//! The TCP sockets of a network namespace, and whose they are: who listens there, for instance.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::capture::cgroups::{is_below, path_of};
use crate::sys::netns::NetworkNamespace;
use crate::sys::sock_diag::{SockDiag, TcpSocket};

/// A socket, and the cgroup that it was made in.
#[derive(Clone, Debug)]
pub struct OwnedSocket {
    pub socket: TcpSocket,
    /// Path of the cgroup from the cgroup v2 root; `None` if it is not known, or has been removed.
    pub cgroup: Option<PathBuf>,
}

impl OwnedSocket {
    /// True if it was made in this cgroup or below it.
    #[must_use]
    pub fn is_of(&self, root: &Path) -> bool {
        self.cgroup.as_deref().is_some_and(|path| is_below(path, root))
    }
}

/// The sockets that listen in a namespace. `mount` is where the cgroup v2 hierarchy is mounted.
///
/// # Errors
/// If the sockets cannot be listed, or a cgroup cannot be looked up.
pub fn listening(netns: &NetworkNamespace, mount: &Path) -> io::Result<Vec<OwnedSocket>> {
    let sockets = netns.run(|| SockDiag::open()?.tcp_listeners())?;
    with_cgroups(sockets, mount)
}

/// All sockets of a namespace that can carry data, or listen.
///
/// # Errors
/// As for [`listening`].
pub fn all(netns: &NetworkNamespace, mount: &Path) -> io::Result<Vec<OwnedSocket>> {
    let sockets = netns.run(|| SockDiag::open()?.tcp_sockets())?;
    with_cgroups(sockets, mount)
}

fn with_cgroups(sockets: Vec<TcpSocket>, mount: &Path) -> io::Result<Vec<OwnedSocket>> {
    let mut paths: HashMap<u64, Option<PathBuf>> = HashMap::new();
    let mut owned = Vec::new();
    for socket in sockets {
        let cgroup = match socket.cgroup {
            None => None,
            Some(id) => match paths.get(&id) {
                Some(path) => path.clone(),
                None => paths.entry(id).or_insert(path_of(mount, id)?).clone(),
            },
        };
        owned.push(OwnedSocket { socket, cgroup });
    }
    Ok(owned)
}
