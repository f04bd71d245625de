//! Processes by descriptor (pidfd_open(2)): unlike a number, it never comes to mean another process.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One process, for as long as it lives and after.
#[derive(Debug)]
pub struct PidFd(AsyncFd<OwnedFd>);

impl PidFd {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
        // SAFETY: the system call takes two numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, libc::PIDFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made the descriptor for us; it fits, as all descriptors do.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // SAFETY: an `OwnedFd` keeps its descriptor until it is dropped, by the `AsyncFd`, after deregistration.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
            .map_err(io::Error::other)?;
        Ok(Self(fd))
    }

    /// True if the process has not ended yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut poll =
            libc::pollfd { fd: self.0.get_ref().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid structure, and no waiting.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 0 }
    }

    /// Waits for the process to end.
    pub async fn ended(&self) {
        while self.is_alive() {
            match self.0.readable().await {
                Ok(mut ready) if self.is_alive() => ready.clear_ready(),
                _ => return,
            }
        }
    }
}

/// A descriptor of our own for what another process has open (pidfd_getfd(2), Linux 5.6).
pub fn copy_descriptor(pid: u32, descriptor: i32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: both system calls take numbers, and return descriptors that are owned at once.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if process < 0 {
            return Err(io::Error::last_os_error());
        }
        let process = OwnedFd::from_raw_fd(process as i32);
        let copy = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0);
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(copy as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pidfd = PidFd::open(child.id()).unwrap();
        assert!(pidfd.is_alive());
        child.kill().unwrap();
        pidfd.ended().await;
        child.wait().unwrap();
        assert!(!pidfd.is_alive());
        assert!(PidFd::open(child.id()).is_err());
    }
}
