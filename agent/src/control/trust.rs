//! The trust of a workload: the bundles of its source, completed by configured bundles and CRLs.

use std::sync::Arc;

use crate::desired::{CertificateSource, TrustDomainEntry};
use crate::materials::Materials;
use crate::trust::{DomainTrust, Trust, TrustBundle, VerifiedChains};

/// Completes the trust that a source brings. A domain whose configured bundle was never readable is not trusted at all.
/// Chains in `verified` are keyed by the content of the bundles and CRLs, so they stay valid when files are read again.
pub fn complete(
    source: &Trust,
    further: &[Arc<TrustDomainEntry>],
    materials: &Materials,
    verified: &Arc<VerifiedChains>,
) -> Trust {
    let mut domains = source.domains().clone();
    for entry in further {
        if let Some(path) = &entry.bundle {
            let source = CertificateSource::File(path.clone());
            let authorities = materials.certificates(&source).to_vec();
            match TrustBundle::new(entry.name.clone(), authorities) {
                Ok(bundle) => {
                    let bundle = bundle.loaded_at(materials.since(&source));
                    let trust = DomainTrust { bundle: Arc::new(bundle), revocation: None };
                    domains.insert(entry.name.clone(), trust);
                }
                Err(_) => {
                    domains.remove(&entry.name);
                }
            }
        }
        if let Some(crl) = &entry.crl
            && let Some(domain) = domains.get_mut(&entry.name)
        {
            domain.revocation = materials.revocation(crl);
        }
    }
    Trust::new(domains).with_verified(verified.clone())
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::UnixTime;

    use super::*;
    use crate::desired::Desired;
    use crate::flow::Role;
    use crate::trust::testing::{Ca, authenticate, authenticator, svid};

    #[test]
    fn a_chain_that_was_verified_stays_so_when_trust_is_published_again() {
        let mut materials = Materials::default();
        let ca = Ca::new("example.org");
        let web = "spiffe://example.org/web";
        let leaf = ca.issue(svid(web, |_| {}));
        let verified = Arc::new(VerifiedChains::default());
        let believed = |materials: &Materials| {
            let trust = complete(&ca.trust(), &[], materials, &verified);
            authenticate(&authenticator(trust), &leaf, Role::Client, UnixTime::now()).is_ok()
        };
        assert!(believed(&materials));
        materials.follow(&Desired::default());
        assert!(believed(&materials) && believed(&materials.clone()));
        assert_eq!((verified.hits(), verified.misses()), (2, 1));
    }
}
