//! Processes by descriptor (pidfd_open(2)): unlike a number, it never comes to mean another process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
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
        let fd = pidfd_open(process(pid)?, PidfdFlags::NONBLOCK)?;
        // SAFETY: an `OwnedFd` keeps its descriptor until it is dropped, by the `AsyncFd`, after deregistration.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
            .map_err(io::Error::other)?;
        Ok(Self(fd))
    }

    /// True if the process has not ended yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(self.0.get_ref().as_fd(), PollFlags::POLLIN)];
        poll(&mut ended, PollTimeout::ZERO) == Ok(0)
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
    let process = pidfd_open(process(pid)?, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())?)
}

fn process(pid: u32) -> io::Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
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
