//! Authorities that may vouch for names, and their CRLs.

use std::fmt;
use std::sync::Arc;

use super::{Anchors, Revocation};

/// Who may vouch for a peer that is no member of a trust domain.
#[derive(Clone)]
pub struct Authorities {
    pub anchors: Anchors,
    /// `None` if certificates are not looked up in any CRL.
    pub revocation: Option<Arc<Revocation>>,
}

impl fmt::Debug for Authorities {
    /// Without the anchors: there may be hundreds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities")
            .field("anchors", &self.anchors.as_slice().len())
            .field("revocation", &self.revocation)
            .finish()
    }
}
