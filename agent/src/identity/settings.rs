//! Settings of sources: what every kind of source must implement besides following.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use rustls::crypto::CryptoProvider;

use super::Source;
use crate::follow::{Check, Comparable, Problem};
use crate::spiffe::SpiffeId;

/// Settings of a source for one workload. Each kind of source has a type of its own.
pub trait SourceSettings: Comparable + fmt::Debug + Send + Sync {
    /// For status: `ca`, `files` or `spire`.
    fn kind(&self) -> &'static str;

    /// Opens the source.
    ///
    /// # Errors
    /// If it cannot give an identity now and retrying would not help.
    fn open(&self, shared: &mut Shared) -> Result<Arc<dyn Source>, Problem>;

    /// For `sheath check`: whether the workload would get an identity now. Changes nothing. `None` if there is nothing to
    /// report.
    fn check(&self, workload: &str, expected: Option<&SpiffeId>) -> Option<Check>;
}

impl PartialEq for dyn SourceSettings {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other)
    }
}

/// What several sources share, for example the embedded CA of a directory.
#[derive(Debug)]
pub struct Shared {
    provider: Arc<CryptoProvider>,
    /// By type and path, as long as a source uses it.
    known: HashMap<(TypeId, PathBuf), Weak<dyn Any + Send + Sync>>,
}

impl Shared {
    #[must_use]
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider, known: HashMap::new() }
    }

    #[must_use]
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// The value for `path`. It is made if no source uses one.
    ///
    /// # Errors
    /// If `make` fails.
    pub fn get_or_make<T: Send + Sync + 'static, E>(
        &mut self,
        path: &Path,
        make: impl FnOnce(&Arc<CryptoProvider>) -> Result<Arc<T>, E>,
    ) -> Result<Arc<T>, E> {
        let key = (TypeId::of::<T>(), path.to_owned());
        let known = self.known.get(&key).and_then(Weak::upgrade);
        if let Some(known) = known.and_then(|known| known.downcast().ok()) {
            return Ok(known);
        }
        let made = make(&self.provider)?;
        let shared: Arc<dyn Any + Send + Sync> = made.clone();
        self.known.retain(|_, known| known.strong_count() > 0);
        self.known.insert(key, Arc::downgrade(&shared));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn what_is_shared_is_made_once_and_goes_with_the_last_source_that_has_it() {
        let mut shared = Shared::new(crate::peer::crypto_provider().into());
        let mut made = 0;
        let mut get = |shared: &mut Shared, path: &str| {
            let make = |_: &Arc<CryptoProvider>| {
                made += 1;
                Ok::<_, Infallible>(Arc::new(made))
            };
            shared.get_or_make(Path::new(path), make).unwrap()
        };
        let one = get(&mut shared, "/a");
        let same = get(&mut shared, "/a");
        let other = get(&mut shared, "/b");
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        drop((one, same));
        assert_eq!(*get(&mut shared, "/a"), 3);
    }
}
