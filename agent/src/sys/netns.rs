//! Network namespaces: entering one for the length of a closure, and telling them apart.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::getsockopt;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use nix::{getsockopt_impl, sockopt_impl};
use socket2::{Domain, Socket, Type};

/// An open network namespace. Holding it keeps the namespace alive.
#[derive(Clone, Debug)]
pub struct NetworkNamespace {
    file: Arc<File>,
    inode: u64,
    /// The agent's own namespace, to return to; `None` if this is the agent's own.
    home: Option<Arc<File>>,
}

impl NetworkNamespace {
    /// The agent's own.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn own() -> io::Result<Self> {
        Self::from_file(File::open("/proc/self/ns/net")?, None)
    }

    /// The namespace at `path` (as `/proc/<pid>/ns/net`), to be entered from `own`.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, own: &Self) -> io::Result<Self> {
        Self::other(File::open(path)?, own)
    }

    /// The namespace at a path that somebody else has named, to be entered from `own`.
    ///
    /// # Errors
    /// If the file cannot be opened, or is anything else.
    pub fn open_named(path: &Path, own: &Self) -> io::Result<Self> {
        Self::received(open_file(path)?.into(), own)
    }

    /// The namespace that somebody else has opened, to be entered from `own`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn received(file: OwnedFd, own: &Self) -> io::Result<Self> {
        // `NS_GET_NSTYPE`, ioctl_nsfs(2). What it means to other files is not known.
        const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
        if fstatfs(&file)?.filesystem_type() == NSFS_MAGIC {
            // SAFETY: the request takes no argument.
            let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
            if kind == libc::CLONE_NEWNET {
                return Self::other(file.into(), own);
            }
        }
        Err(io::Error::other("it is no network namespace"))
    }

    /// The namespace of a socket, to be entered from `own`: nobody need be in it.
    pub fn of_socket(socket: &impl AsRawFd, own: &Self) -> io::Result<Self> {
        const SIOCGSKNS: libc::c_ulong = 0x894c;
        // SAFETY: the request takes no argument, and returns a descriptor that is owned at once.
        let file = unsafe {
            let fd = libc::ioctl(socket.as_raw_fd(), SIOCGSKNS as _);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            File::from_raw_fd(fd)
        };
        Self::other(file, own)
    }

    fn other(file: File, own: &Self) -> io::Result<Self> {
        let namespace = Self::from_file(file, Some(own.file.clone()))?;
        if namespace.inode == own.inode {
            return Ok(own.clone());
        }
        Ok(namespace)
    }

    fn from_file(file: File, home: Option<Arc<File>>) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        Ok(Self { file: Arc::new(file), inode, home })
    }

    /// Inode number: what `lsns` and `ip netns` show, and unique among live namespaces.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// True for the agent's own namespace.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.home.is_none()
    }

    /// Runs `f` in this namespace, on the calling thread. `f` must not block for long and must not hand work
    /// to other threads: only the calling thread is moved. Sockets made by `f` stay in the namespace.
    ///
    /// # Errors
    /// Those of `setns(2)` and of `f`. If the thread cannot come back, the process ends: a thread in the wrong
    /// namespace would send one workload's bytes with another's address.
    pub fn run<T>(&self, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(home) = &self.home else {
            return f();
        };
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
        let _way_back = WayBack(home);
        f()
    }

    /// The kernel's cookie of the namespace: never reused while the machine runs.
    ///
    /// # Errors
    /// If the thread cannot enter the namespace, or no socket can be made there.
    pub fn cookie(&self) -> io::Result<u64> {
        self.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket_cookie(&socket)
        })
    }
}

/// Opens what somebody says is a namespace, without waiting for the other end of a FIFO.
///
/// # Errors
/// If it cannot be opened.
pub fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
    options.open(path)
}

/// Returns the thread to the agent's namespace, however the work in another one ends.
struct WayBack<'h>(&'h File);

impl Drop for WayBack<'_> {
    fn drop(&mut self) {
        if setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
    }
}

impl std::os::fd::AsFd for NetworkNamespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `SO_NETNS_COOKIE`, Linux 5.14, `include/uapi/asm-generic/socket.h`
const SO_NETNS_COOKIE: libc::c_int = 71;

sockopt_impl!(
    /// The cookie of a socket's network namespace.
    NetnsCookie, GetOnly, libc::SOL_SOCKET, SO_NETNS_COOKIE, u64
);

/// The cookie of a socket's network namespace.
pub fn socket_cookie(socket: &impl AsFd) -> io::Result<u64> {
    Ok(getsockopt(socket, NetnsCookie)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_namespaces_are_taken_for_some() {
        let own = NetworkNamespace::own().unwrap();
        let named = |path: &Path| NetworkNamespace::open_named(path, &own);
        assert!(named(Path::new("/proc/self/ns/net")).unwrap().is_own());
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in ["/proc/self/ns/mnt", "/dev/null", "/proc/self/status", "/nowhere"] {
            assert!(named(Path::new(path)).is_err(), "{path}");
        }
        assert!(named(&fifo).is_err());
    }
}
