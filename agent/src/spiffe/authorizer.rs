//! Who may be at the other end.

use std::sync::Arc;

use super::SpiffeId;

/// A set of SPIFFE IDs, one of which the peer must have proved to be. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorizer {
    expected: Arc<[SpiffeId]>,
}

/// The peer is somebody, but nobody who is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer proved to be {found}, which is not expected here")]
pub struct Unauthorized {
    pub found: SpiffeId,
}

impl Authorizer {
    /// An empty set authorises nobody.
    #[must_use]
    pub fn new(expected: Vec<SpiffeId>) -> Self {
        Self { expected: expected.into() }
    }

    /// # Errors
    /// If the identity, compared byte for byte, is not in the set.
    pub fn authorize(&self, peer: &SpiffeId) -> Result<(), Unauthorized> {
        if self.expected.contains(peer) {
            Ok(())
        } else {
            Err(Unauthorized { found: peer.clone() })
        }
    }
}
