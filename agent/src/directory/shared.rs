//! The directory in force: replaced whole, and read without a lock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{Directory, Found};

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

    /// Waits until something is known of a destination, but not longer than this.
    pub async fn await_known(&self, destination: SocketAddr, limit: Duration) {
        let mut changes = self.changes.subscribe();
        let known = async {
            while self.load().find(destination) == Found::Unknown {
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
