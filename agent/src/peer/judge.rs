//! The judgement on a peer: who it is, and whether it may be there. The same in both directions, at the handshake
//! and whenever a live session is judged again.

use rustls_pki_types::UnixTime;

use super::{Allowed, Denial, Expectation};
use crate::flow::{PeerId, Role};
use crate::origin::Origin;
use crate::trust::{AuthenticationError, Authenticator, PeerChain, Validity};

/// Judges peers for one workload and one place.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Says who somebody is.
    pub authenticator: Authenticator,
    /// Says whether it may be there.
    pub expectation: Expectation,
}

/// A peer that was let through, and what the judgement rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub peer: PeerId,
    /// The rule that allows it.
    pub rule: Origin,
    /// When the certificates are good that prove who it is, from the peer's own to the authority's.
    pub validity: Validity,
    /// When the CRLs can tell that none of them is revoked.
    pub unrevoked: Validity,
}

/// Why a peer is not let through: the cause for each alternative of the expectation.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Refusal {
    /// The rule that applies there, if there is one.
    pub rule: Option<Origin>,
    pub causes: Vec<Cause>,
}

/// What a peer has failed at.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Cause {
    /// It has not proved who it is.
    #[error(transparent)]
    Authentication(#[from] AuthenticationError),
    /// It has, and may not be there.
    #[error(transparent)]
    Authorization(#[from] Denial),
}

impl Cause {
    /// Who the peer is, or claims to be, where that is known.
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Authentication(error) => error.claimed(),
            Self::Authorization(denial) => denial.denied(),
        }
    }
}

impl Refusal {
    /// A refusal that has one cause for all alternatives.
    #[must_use]
    pub fn at_once(expected: &Expectation, cause: impl Into<Cause>) -> Self {
        Self { rule: expected.rule().cloned(), causes: vec![cause.into()] }
    }

    /// Who the peer is, or claims to be, where that is known.
    #[must_use]
    pub fn peer(&self) -> Option<PeerId> {
        self.causes.iter().find_map(Cause::peer)
    }
}

impl Judge {
    /// Who the peer is, if it may be there. That it has the key is proved elsewhere.
    ///
    /// # Errors
    /// Of several alternatives that all fail, the cause of each.
    pub fn judge(&self, peer: PeerChain<'_>, role: Role, now: UnixTime) -> Result<Judged, Refusal> {
        let expected = &self.expectation;
        let candidate = self.authenticator.candidate(peer, role, now);
        let candidate = candidate.map_err(|error| Refusal::at_once(expected, error))?;
        let mut causes = Vec::new();
        for alternative in expected.alternatives() {
            let identity = match candidate.authenticate(alternative.method()) {
                Ok(identity) => identity,
                Err(error) => {
                    causes.push(error.into());
                    continue;
                }
            };
            match alternative.authorize(&identity) {
                Ok(Allowed { peer, rule }) => {
                    let (validity, unrevoked) = (identity.validity, identity.unrevoked);
                    return Ok(Judged { peer, rule, validity, unrevoked });
                }
                Err(denial) => causes.push(denial.into()),
            }
        }
        if causes.is_empty() {
            return Err(Refusal::at_once(expected, Denial::Nobody(expected.why_nobody())));
        }
        Err(Refusal { rule: expected.rule().cloned(), causes })
    }
}
