//! Destinations that could not be reached a moment ago.
//!
//! A `connect()` that is turned to the agent succeeds before the agent has dialled. So a client that learns by `connect()`
//! alone whether a server lives (a health check, a client that tries a name's addresses in turn) would always believe that it
//! does. Once a dial has failed, the kernel gives the same answer to the next `connect()` at once. The agent dials now and
//! then to see whether the destination is back, for as long as somebody asks.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use sheath_common::flow::{Unreachable, UnreachableKey};
use sheath_common::workload::WorkloadId;

use super::state::Namespace;
use crate::flow::Inherited;

/// Pauses between two dials: short at first, for servers that are restarted.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A destination that nobody has asked for in this time is not dialled any more.
const INTEREST: Duration = Duration::from_secs(15);
impl Namespace {
    /// Has the kernel refuse further connections of the workload to a destination that could not be reached, until it
    /// is back. Each dial has the options of the flow's, and takes no longer than `limit`. Needs a tokio runtime.
    pub fn note_unreachable(
        self: &Arc<Self>,
        workload: WorkloadId,
        destination: SocketAddr,
        inherited: Inherited,
        errno: i32,
        limit: Duration,
    ) {
        let key = UnreachableKey {
            netns: self.cookie,
            destination: destination.into(),
            workload,
            uid: inherited.owner.uid,
            mark: inherited.asked.mark,
        };
        if !self.watched.begin(key) {
            return;
        }
        let namespace = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = namespace.closed.cancelled() => {}
                result = namespace.watch(&key, destination, &inherited, errno, limit) => if let Err(error) = result {
                    tracing::warn!(%destination, %error, "cannot record that a destination is unreachable");
                }
            }
            let _ = namespace.maps.unreachable.remove(&key);
            namespace.watched.end(&key);
        });
    }

    /// Ends when the destination is back, or when nobody asks for it any more.
    async fn watch(
        &self,
        key: &UnreachableKey,
        destination: SocketAddr,
        inherited: &Inherited,
        mut errno: i32,
        limit: Duration,
    ) -> io::Result<()> {
        let begun = now()?;
        let mut pause = FIRST_PAUSE;
        loop {
            let table = &self.maps.unreachable;
            let asked = table.get(key)?.map_or(Duration::ZERO, |known| ns(known.asked_ns));
            let now = now()?;
            if now.saturating_sub(asked.max(begun)) > INTEREST {
                return Ok(());
            }
            let until = now + pause + limit + LONGEST_PAUSE;
            let entry = Unreachable {
                until_ns: until.as_nanos() as u64,
                asked_ns: asked.as_nanos() as u64,
                errno: errno as u32,
                _reserved: 0,
            };
            table.insert(key, &entry)?;
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
            let anywhere = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
            match self.dial_wire(anywhere, destination, inherited, limit).await {
                Ok(_) => return Ok(()),
                Err(error) => match errno_of(&error) {
                    Some(again) => errno = again,
                    None => return Ok(()),
                },
            }
        }
    }
}

/// The errno of a dial that has failed because of the destination, and not of the agent.
#[must_use]
pub fn errno_of(error: &io::Error) -> Option<i32> {
    match error.raw_os_error() {
        Some(
            errno @ (libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ETIMEDOUT),
        ) => Some(errno),
        None if error.kind() == io::ErrorKind::TimedOut => Some(libc::ETIMEDOUT),
        _ => None,
    }
}

fn now() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

fn ns(nanoseconds: u64) -> Duration {
    Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_destinations_own_failures_are_remembered() {
        let of = |errno| errno_of(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::ECONNREFUSED), Some(libc::ECONNREFUSED));
        assert_eq!(of(libc::EHOSTUNREACH), Some(libc::EHOSTUNREACH));
        assert_eq!(errno_of(&io::ErrorKind::TimedOut.into()), Some(libc::ETIMEDOUT));
        for own in [libc::EMFILE, libc::EADDRINUSE, libc::EADDRNOTAVAIL, libc::EPERM] {
            assert_eq!(of(own), None, "{own}");
        }
    }
}
