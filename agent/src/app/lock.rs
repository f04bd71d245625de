//! The lock of an instance: one agent at a time looks after what is in the kernel.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};

use super::error::StartError;
use crate::config::Instance;

/// The lock, held. It belongs to the open file (flock(2)): whoever has a descriptor of that holds it, and it is free when the
/// last of these is closed. So it can be passed on without being free in between.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock of an instance. Makes its directory if need be.
    ///
    /// # Errors
    /// [`StartError::AlreadyRunning`] if another process has it.
    pub fn take(instance: &Instance) -> Result<Self, StartError> {
        let directory = instance.directory();
        let cannot = |what: &str| StartError::io(format!("cannot {what} {}", directory.display()));
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(&directory).map_err(cannot("make"))?;
        let metadata = fs::metadata(&directory).map_err(cannot("look at"))?;
        if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            return Err(cannot("trust")(io::Error::other(
                "it must belong to root and be writable by nobody else",
            )));
        }
        let file = File::create(instance.lock()).map_err(cannot("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(StartError::AlreadyRunning(instance.name.clone())),
            Err(TryLockError::Error(error)) => Err(cannot("lock")(error)),
        }
    }

    /// The lock of an instance that another agent has passed on.
    ///
    /// # Errors
    /// [`StartError::NotTheLock`] if it is another file, or does not hold the lock.
    pub fn received(descriptor: OwnedFd, instance: &Instance) -> Result<Self, StartError> {
        let file = File::from(descriptor);
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        let found = file.metadata().map(identity).ok();
        let wanted = fs::metadata(instance.lock()).map(identity).ok();
        // To lock again what is locked by the same open file changes nothing. By another one it is refused.
        if found.is_none() || found != wanted || file.try_lock().is_err() {
            return Err(StartError::NotTheLock);
        }
        Ok(Self(file))
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(directory: &tempfile::TempDir) -> Instance {
        Instance::new("a", directory.path()).unwrap()
    }

    /// The directory must be root's, so this test is root's.
    #[test]
    fn the_lock_is_free_when_the_last_who_has_it_lets_go_and_not_before() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let instance = instance(&directory);
        let is_taken = || matches!(Lock::take(&instance), Err(StartError::AlreadyRunning(_)));
        let first = Lock::take(&instance).unwrap();
        assert!(is_taken());
        let passed_on = first.as_fd().try_clone_to_owned().unwrap();
        let second = Lock::received(passed_on, &instance).unwrap();
        drop(first);
        assert!(is_taken(), "the successor has it");
        drop(second);
        assert!(!is_taken());
    }

    #[test]
    fn only_the_lock_is_taken_for_the_lock() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let instance = instance(&directory);
        let held = Lock::take(&instance).unwrap();
        let others = [File::open("/dev/null").unwrap(), File::open(instance.lock()).unwrap()];
        for other in others {
            let received = Lock::received(other.into(), &instance);
            assert!(matches!(received, Err(StartError::NotTheLock)), "{received:?}");
        }
        drop(held);
    }
}
