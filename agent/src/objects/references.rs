//! What objects refer to, and whether it is there.

use super::model::ObjectName;
use super::model::tls::Tls;
use super::set::{Cluster, Objects};
use crate::spiffe::TrustDomain;

/// Something that is referred to is not there, so nobody is believed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("there is no TlsContext {0}")]
    Missing(ObjectName),
    #[error("the TlsContext {0} makes no sense")]
    Unread(ObjectName),
    #[error("the trust domain {0} is neither the cluster's nor in trustDomains of the TrustDomain")]
    Domain(TrustDomain),
}

/// Looks up what TLS in an object of a namespace refers to.
///
/// # Errors
/// The first that is not there.
pub fn resolve(
    objects: &Objects,
    namespace: &str,
    tls: &Tls,
    cluster: &Cluster,
) -> Result<(), Unresolved> {
    for context in tls.contexts() {
        let name = ObjectName::new(namespace, context);
        match objects.tls_contexts.get(&name) {
            Some(Some(_)) => {}
            Some(None) => return Err(Unresolved::Unread(name)),
            None => return Err(Unresolved::Missing(name)),
        }
    }
    match tls.domain() {
        Some(domain) if !objects.believes(cluster, domain) => {
            Err(Unresolved::Domain(domain.clone()))
        }
        _ => Ok(()),
    }
}
