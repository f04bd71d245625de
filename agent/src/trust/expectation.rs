//! What a peer must prove, and how. Policy makes it; the tls stage applies it.

use std::fmt;
use std::sync::Arc;

use super::{Anchors, Pin, Revocation};
use crate::spiffe::SpiffeId;

/// Ways to be believed; one of them will do. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    ways: Arc<[Way]>,
}

/// One way to be believed.
#[derive(Clone, Debug)]
pub struct Way {
    pub proof: Proof,
    /// If there are any, the certificate must match one of them in addition.
    pub pins: Vec<Pin>,
}

/// What a certificate must show.
#[derive(Clone)]
pub enum Proof {
    /// To be an X.509-SVID of one of these, by the bundle of its own trust domain.
    Spiffe(Vec<SpiffeId>),
    /// A chain to one of these authorities, and one of these names.
    Chain { anchors: Anchors, revocation: Option<Arc<Revocation>>, names: Names },
    /// To be pinned, and nothing else but that the peer has the key.
    Pinned,
}

/// Names of a certificate, one of which it must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Compared byte for byte.
    pub uris: Vec<Arc<str>>,
    /// A certificate's wildcard counts for them (RFC 9525, 6.3).
    pub dns: Vec<Arc<str>>,
}

impl fmt::Debug for Proof {
    /// Without the anchors: there may be hundreds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spiffe(ids) => f.debug_tuple("Spiffe").field(ids).finish(),
            Self::Chain { anchors, names, .. } => f
                .debug_struct("Chain")
                .field("anchors", &anchors.as_slice().len())
                .field("names", names)
                .finish(),
            Self::Pinned => f.write_str("Pinned"),
        }
    }
}

impl Expectation {
    /// Without a way nobody is believed.
    #[must_use]
    pub fn new(ways: Vec<Way>) -> Self {
        Self { ways: ways.into() }
    }

    /// One of these SPIFFE IDs, or one of these pins.
    #[must_use]
    pub fn of(ids: Vec<SpiffeId>, pins: Vec<Pin>) -> Self {
        let mut ways = Vec::new();
        if !ids.is_empty() {
            ways.push(Way { proof: Proof::Spiffe(ids), pins: Vec::new() });
        }
        if !pins.is_empty() {
            ways.push(Way { proof: Proof::Pinned, pins });
        }
        Self::new(ways)
    }

    /// This or that.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self::new(self.ways.iter().chain(other.ways.iter()).cloned().collect())
    }

    #[must_use]
    pub fn ways(&self) -> &[Way] {
        &self.ways
    }
}
