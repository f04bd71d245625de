//! What entries may refer to: trust domains and TLS contexts of the same file.

use std::collections::HashSet;

use crate::spiffe::{SpiffeId, TrustDomain};

/// What peers may refer to in other parts of the configuration.
pub struct Known<'c> {
    pub domains: &'c HashSet<TrustDomain>,
    /// True if a source may bring bundles of any domain.
    pub any_domain: bool,
    pub contexts: &'c HashSet<String>,
}

/// The ID is of a trust domain that has no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{id} is of the trust domain {}, for which trustDomains has no entry", id.trust_domain())]
pub struct UnknownDomain {
    id: SpiffeId,
}

impl Known<'_> {
    /// # Errors
    /// If no bundle of an ID's trust domain is configured.
    pub fn check_ids(&self, ids: &[SpiffeId]) -> Result<(), UnknownDomain> {
        let foreign =
            |id: &&SpiffeId| !self.any_domain && !self.domains.contains(id.trust_domain());
        match ids.iter().find(foreign) {
            None => Ok(()),
            Some(id) => Err(UnknownDomain { id: id.clone() }),
        }
    }
}
