//! The identity of a pod.

use crate::spiffe::{SpiffeError, SpiffeId, TrustDomain};

/// The SPIFFE ID of pods with a service account.
///
/// # Errors
/// If the namespace or the account has a name that no SPIFFE ID can have. Kubernetes gives none such.
pub fn spiffe_id(
    trust_domain: &TrustDomain,
    namespace: &str,
    account: &str,
) -> Result<SpiffeId, SpiffeError> {
    format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}").parse()
}
