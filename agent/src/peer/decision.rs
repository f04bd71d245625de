//! Authorization: whether a peer that has proved who it is may be at the other end of a flow.

use super::expectation::{Alternative, Listed, Names, Nobody, Requirement};
use crate::flow::PeerId;
use crate::origin::Origin;
use crate::spiffe::{IdPattern, SpiffeId};
use crate::trust::{Identity, Pin};
use crate::x509::Fingerprint;

/// A peer may be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The peer, by the name that it is allowed by.
    pub peer: PeerId,
    /// The rule that allows it.
    pub rule: Origin,
}

/// A peer may not be there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    #[error("{0}")]
    Nobody(Nobody),
    #[error("the peer proved to be {found}, which is not expected here: {rule} does not name it")]
    NotNamed { found: SpiffeId, rule: Origin },
    #[error("the certificate has none of the names that are expected here, by {rule}")]
    NoExpectedName { rule: Origin },
    #[error("the certificate {} is not pinned here, by {rule}", PeerId::Pinned(*.found))]
    NotPinned { found: Fingerprint, rule: Origin },
}

impl Denial {
    /// Who was denied, where that is known.
    #[must_use]
    pub fn denied(&self) -> Option<PeerId> {
        match self {
            Self::NotNamed { found, .. } => Some(found.clone().into()),
            Self::NotPinned { found, .. } => Some(PeerId::Pinned(*found)),
            Self::Nobody(_) | Self::NoExpectedName { .. } => None,
        }
    }
}

impl Alternative {
    /// Authorizes a peer that has proved who it is by this [method](Self::method).
    ///
    /// # Errors
    /// The part of the requirement that the peer does not meet.
    pub fn authorize(&self, identity: &Identity<'_>) -> Result<Allowed, Denial> {
        let rule = || self.rule.clone();
        let (allowed, pins) = match &self.requirement {
            Requirement::Pinned(pins) => return pinned(identity, pins, &self.rule),
            Requirement::Svid { ids, pins } => (named(identity, ids, &self.rule)?, pins),
            Requirement::Names { names, pins, .. } => {
                let peer = expected_name(identity, names);
                let peer = peer.ok_or_else(|| Denial::NoExpectedName { rule: rule() })?;
                (Allowed { peer, rule: rule() }, pins)
            }
        };
        if pins.is_empty() || pins.iter().any(|pin| identity.matches(pin)) {
            Ok(allowed)
        } else {
            Err(Denial::NotPinned { found: identity.fingerprint(), rule: rule() })
        }
    }
}

fn named(
    identity: &Identity<'_>,
    ids: &[Listed<IdPattern>],
    rule: &Origin,
) -> Result<Allowed, Denial> {
    let found = identity.spiffe_id().ok_or(Denial::Nobody(Nobody::Unnamed))?;
    match ids.iter().find(|listed| listed.value.matches(found)) {
        Some(listed) => Ok(Allowed { peer: found.clone().into(), rule: listed.rule.clone() }),
        None => Err(Denial::NotNamed { found: found.clone(), rule: rule.clone() }),
    }
}

fn pinned(identity: &Identity<'_>, pins: &[Listed<Pin>], rule: &Origin) -> Result<Allowed, Denial> {
    let found = identity.fingerprint();
    match pins.iter().find(|listed| identity.matches(&listed.value)) {
        Some(listed) => Ok(Allowed { peer: PeerId::Pinned(found), rule: listed.rule.clone() }),
        None => Err(Denial::NotPinned { found, rule: rule.clone() }),
    }
}

/// The first URI name of the certificate that is expected, or the first expected DNS name that it is valid for.
fn expected_name(identity: &Identity<'_>, names: &Names) -> Option<PeerId> {
    let uri = identity.uri(|uri| names.uris.iter().find(|expected| ***expected == *uri).cloned());
    let dns = || names.dns.iter().find(|name| identity.has_dns_name(name)).cloned();
    uri.map(PeerId::Uri).or_else(|| dns().map(PeerId::Dns))
}
