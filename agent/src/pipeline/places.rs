//! The network namespaces that are served, by cookie: where flows of another process can go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::capture::Place;

/// The namespaces that are served.
#[derive(Debug, Default)]
pub struct Places {
    served: Mutex<HashMap<u64, Weak<dyn Place>>>,
}

impl Places {
    /// Adds one, for as long as it is served.
    pub fn add(&self, cookie: u64, place: &Arc<dyn Place>) {
        let mut served = self.lock();
        served.retain(|_, place| place.strong_count() > 0);
        served.insert(cookie, Arc::downgrade(place));
    }

    #[must_use]
    pub fn get(&self, cookie: u64) -> Option<Arc<dyn Place>> {
        self.lock().get(&cookie).and_then(Weak::upgrade)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<dyn Place>>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
