//! The listeners that are left when capture is a successor's.

use std::sync::Arc;

use super::state::Namespace;

/// What still accepts connections, in all namespaces. The kernel turns none to it any more once the successor has put its own
/// listeners in their place.
#[derive(Debug)]
pub struct Listeners(Vec<Arc<Namespace>>);

impl Listeners {
    pub(in crate::capture) fn of(namespaces: Vec<Arc<Namespace>>) -> Self {
        Self(namespaces)
    }

    /// Has new connections come to them again: the successor has ended, and with it whatever had their place.
    pub fn put_back(&self) {
        for namespace in &self.0 {
            if let Err(error) = namespace.put_listeners() {
                tracing::error!(
                    namespace = namespace.inode(),
                    %error,
                    "connections of a network namespace do not come back from a successor that has ended"
                );
            }
        }
    }

    /// Stops accepting; connections that are not accepted yet are reset.
    pub fn stop(self) {
        self.0.iter().for_each(|namespace| namespace.stop_accepting());
    }
}
