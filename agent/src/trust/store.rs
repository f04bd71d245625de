//! The trust of one workload: a bundle for each trust domain of its own and of its peers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Revocation, TrustBundle, VerifiedChains};
use crate::spiffe::TrustDomain;

/// The authorities and CRLs of one trust domain.
#[derive(Clone, Debug)]
pub struct DomainTrust {
    pub bundle: Arc<TrustBundle>,
    /// `None` if certificates of the domain are not looked up in any CRL.
    pub revocation: Option<Arc<Revocation>>,
}

/// Trust by trust domain, as a whole. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    domains: Arc<BTreeMap<TrustDomain, DomainTrust>>,
    verified: Arc<VerifiedChains>,
}

impl Trust {
    #[must_use]
    pub fn new(domains: BTreeMap<TrustDomain, DomainTrust>) -> Self {
        Self { domains: Arc::new(domains), verified: Arc::default() }
    }

    /// The same trust, with proofs that are shared with others.
    #[must_use]
    pub fn with_verified(self, verified: Arc<VerifiedChains>) -> Self {
        Self { verified, ..self }
    }

    /// Trust without any CRL.
    #[must_use]
    pub fn of_bundles(bundles: impl IntoIterator<Item = Arc<TrustBundle>>) -> Self {
        let entry = |bundle: Arc<TrustBundle>| {
            (bundle.trust_domain().clone(), DomainTrust { bundle, revocation: None })
        };
        Self::new(bundles.into_iter().map(entry).collect())
    }

    #[must_use]
    pub fn domain(&self, name: &TrustDomain) -> Option<&DomainTrust> {
        self.domains.get(name)
    }

    #[must_use]
    pub fn domains(&self) -> &BTreeMap<TrustDomain, DomainTrust> {
        &self.domains
    }

    /// The chains that have been verified, by this trust or by any that shares its proofs.
    #[must_use]
    pub fn verified(&self) -> &VerifiedChains {
        &self.verified
    }
}
