//! The directory in force: replaced whole, and read without a lock.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::Directory;

/// The directory in force.
#[derive(Debug)]
pub struct Shared {
    current: ArcSwap<Directory>,
    /// Notifies of changes.
    changes: watch::Sender<()>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { current: ArcSwap::default(), changes: watch::Sender::new(()) }
    }
}

impl Shared {
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Directory>> {
        self.current.load()
    }

    pub fn publish(&self, directory: Directory) {
        self.current.store(Arc::new(directory));
        self.changes.send_replace(());
    }

    /// Waits until a change has brought something about, but not longer than this.
    pub async fn await_until(&self, is_so: impl Fn() -> bool, limit: Duration) {
        let mut changes = self.changes.subscribe();
        let known = async {
            while !is_so() {
                // The sender lives as long as this.
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // Whoever has waited asks again.
        let _ = tokio::time::timeout(limit, known).await;
    }
}
