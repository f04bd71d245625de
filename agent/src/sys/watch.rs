//! Waiting for files to change, also where they are replaced through symbolic links, as Kubernetes does with
//! the volumes of Secrets and ConfigMaps (`..data`).

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// How often files are checked without a notice: directories may be replaced, and some file systems notify of
/// nothing.
const POLL: Duration = Duration::from_secs(20);
/// How long to wait after the first sign of a change: several files often change together.
const SETTLE: Duration = Duration::from_millis(50);

/// Watches the directories that files are in. A file itself may come, go and be replaced.
#[derive(Debug)]
pub struct Watch {
    /// `None` if the kernel has no more to give; then the clock has to do.
    inotify: Option<AsyncFd<Watched>>,
    directories: BTreeSet<PathBuf>,
    /// When to report a change that has not been reported yet.
    pending: Option<Instant>,
    next_poll: Instant,
}

#[derive(Debug)]
struct Watched(Inotify);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    /// Must be made before the files are read, or a change in between is only seen later. Needs a tokio
    /// runtime.
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let directories = files
            .into_iter()
            .map(|file| {
                file.parent()
                    .filter(|p| !p.as_os_str().is_empty())
                    .unwrap_or(Path::new("."))
                    .to_owned()
            })
            .collect();
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(std::io::Error::from)
            .and_then(|inotify| {
                // SAFETY: the descriptor is the inotify instance's own, the same for as long as that lives, and
                // it is dropped by the `AsyncFd`, after deregistration.
                unsafe { AsyncFd::register_with_interest(Watched(inotify), Interest::READABLE) }
                    .map_err(std::io::Error::other)
            })
            .inspect_err(|error| {
                tracing::warn!(%error, "no inotify watch; changes of files are noticed only every {POLL:?}");
            })
            .ok();
        let watch = Self { inotify, directories, pending: None, next_poll: Instant::now() + POLL };
        watch.add();
        watch
    }

    /// Adding a directory again is harmless. One that is not there is tried again with the next poll.
    fn add(&self) {
        let Some(inotify) = &self.inotify else {
            return;
        };
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        for directory in &self.directories {
            if let Err(error) = inotify.get_ref().0.add_watch(directory, changes) {
                tracing::debug!(directory = %directory.display(), %error, "not watched");
            }
        }
    }

    /// Waits until something may have changed. Nothing is lost if this is dropped before it is done.
    pub async fn changed(&mut self) {
        self.add();
        if self.pending.is_none() {
            tokio::select! {
                () = told(self.inotify.as_ref()) => self.pending = Some(Instant::now() + SETTLE),
                () = tokio::time::sleep_until(self.next_poll) => {}
            }
        }
        if let Some(settled) = self.pending {
            tokio::time::sleep_until(settled).await;
        }
        self.drain();
        self.pending = None;
        self.next_poll = Instant::now() + POLL;
    }

    fn drain(&self) {
        if let Some(inotify) = &self.inotify {
            while inotify.get_ref().0.read_events().is_ok() {}
        }
    }
}

async fn told(inotify: Option<&AsyncFd<Watched>>) {
    let Some(inotify) = inotify else {
        return std::future::pending().await;
    };
    loop {
        let Ok(mut ready) = inotify.readable().await else {
            return std::future::pending().await;
        };
        match inotify.get_ref().0.read_events() {
            Err(Errno::EAGAIN) => ready.clear_ready(),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    async fn is_told(watch: &mut Watch) -> bool {
        tokio::time::timeout(POLL / 2, watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_file_that_is_written_or_replaced_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tls.crt");
        let mut watch = Watch::new([file.clone()]);
        fs::write(&file, "one").unwrap();
        assert!(is_told(&mut watch).await);
        fs::write(directory.path().join("new"), "two").unwrap();
        fs::rename(directory.path().join("new"), &file).unwrap();
        assert!(is_told(&mut watch).await);
        fs::remove_file(&file).unwrap();
        assert!(is_told(&mut watch).await);
    }

    #[tokio::test]
    async fn a_change_is_not_lost_when_nobody_waits_to_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tls.crt");
        let mut watch = Watch::new([file.clone()]);
        fs::write(&file, "one").unwrap();
        // However often somebody gives up waiting, the change comes through in its time.
        let told =
            async { while tokio::time::timeout(SETTLE / 5, watch.changed()).await.is_err() {} };
        assert!(tokio::time::timeout(POLL / 2, told).await.is_ok());
    }

    #[tokio::test]
    async fn the_symlink_swap_of_kubernetes_volumes_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("tls.crt"), version).unwrap();
        }
        std::os::unix::fs::symlink("..1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/tls.crt", at("tls.crt")).unwrap();
        let mut watch = Watch::new([at("tls.crt")]);
        std::os::unix::fs::symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(is_told(&mut watch).await);
        assert_eq!(fs::read_to_string(at("tls.crt")).unwrap(), "..2");
    }
}
