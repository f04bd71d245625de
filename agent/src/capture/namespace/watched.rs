//! The destinations of a namespace that are dialled now and then, to see whether they are back.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sheath_common::flow::UnreachableKey;

/// Destinations of a namespace that are dialled at a time; what fails beyond that is not remembered.
const WATCHED: usize = 256;

/// The destinations of a namespace that are dialled now and then.
#[derive(Debug, Default)]
pub struct Watched(Mutex<HashSet<UnreachableKey>>);

impl Watched {
    /// Begins to watch a destination. False if it is watched already, or too many are.
    pub fn begin(&self, key: UnreachableKey) -> bool {
        let mut watched = self.lock();
        watched.len() < WATCHED && watched.insert(key)
    }

    /// Watches a destination no longer.
    pub fn end(&self, key: &UnreachableKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<UnreachableKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn a_destination_is_watched_once_and_not_too_many_are() {
        let watched = Watched::default();
        let at = |port: u16| UnreachableKey {
            destination: SocketAddr::from(([10, 0, 2, 1], port)).into(),
            ..UnreachableKey::default()
        };
        for port in 0..WATCHED as u16 {
            assert!(watched.begin(at(port)));
            assert!(!watched.begin(at(port)));
        }
        assert!(!watched.begin(at(60_000)));
        watched.end(&at(0));
        assert!(watched.begin(at(60_000)));
    }
}
