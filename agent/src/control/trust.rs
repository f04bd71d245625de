//! What the configuration adds to the trust that a workload's source brings: bundles of further trust domains,
//! and CRLs.

use std::sync::Arc;

use super::Materials;
use crate::config::Config;
use crate::trust::{DomainTrust, Trust, TrustBundle};

/// The trust of a workload. Of a domain whose bundle is named but could never be read nothing is believed.
pub fn complete(source: &Trust, config: &Config, materials: &Materials) -> Trust {
    let mut domains = source.domains().clone();
    for entry in &config.trust_domains {
        if let Some(path) = &entry.bundle {
            let authorities = materials.certificates(path).to_vec();
            match TrustBundle::new(entry.name.clone(), authorities) {
                Ok(bundle) => {
                    let bundle = bundle.loaded_at(materials.since(path));
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
    Trust::new(domains)
}
