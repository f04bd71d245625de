//! Identities, each kept once: very many pods share few of them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::origin::Origin;
use crate::peer::{Expectation, Listed, Requirement};
use crate::spiffe::SpiffeId;

/// The identity of pods.
#[derive(Debug)]
pub struct Identity {
    pub id: SpiffeId,
    /// Exactly this identity, by the directory.
    pub expectation: Expectation,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Identity {}

impl Identity {
    #[must_use]
    pub fn new(id: SpiffeId) -> Self {
        let ids = Listed::all([id.clone().into()], &Origin::Directory);
        let requirement = Requirement::Svid { ids, pins: Vec::new() };
        Self { id, expectation: Expectation::one(Origin::Directory, requirement) }
    }
}

/// The identities in use.
#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<SpiffeId, Arc<Identity>>,
    /// How many there were after those that nobody used any more had been forgotten.
    used: usize,
}

/// So many more than are used may be known.
const SPARE: usize = 1024;

impl Names {
    /// The identity with this SPIFFE ID.
    pub fn identity(&mut self, id: &SpiffeId) -> Arc<Identity> {
        if let Some(known) = self.known.get(id) {
            return known.clone();
        }
        if self.known.len() > 2 * self.used + SPARE {
            self.known.retain(|_, identity| Arc::strong_count(identity) > 1);
            self.used = self.known.len();
        }
        let identity = Arc::new(Identity::new(id.clone()));
        self.known.insert(id.clone(), identity.clone());
        identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_kept_once_and_for_as_long_as_it_is_used() {
        let mut names = Names::default();
        let id = |n: usize| format!("spiffe://example.org/ns/shop/sa/{n}").parse().unwrap();
        let first = names.identity(&id(0));
        assert!(Arc::ptr_eq(&first, &names.identity(&id(0))));
        for n in 1..5000 {
            names.identity(&id(n));
        }
        assert!(names.known.len() <= 2 * SPARE + 2, "{}", names.known.len());
        assert!(Arc::ptr_eq(&first, &names.identity(&id(0))));
    }
}
