//! The judgement on a peer's certificate, the same in both directions, at the handshake and ever after.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use webpki::EndEntityCert;

use super::path::{PathError, Proven, Search};
use super::validity::Validity;
use super::verified::Claim;
use super::{Anchors, Expectation, Names, PeerId, Pin, Proof, Revocation, Trust, Way};
use crate::flow::Role;
use crate::spiffe::{LeafError, SpiffeId, TrustDomain, spiffe_id_of};
use crate::x509::{CertificateFacts, Fingerprint};

/// Certificates that a peer may send besides its own. Real chains have one or two; looking for a way through
/// many takes time that the peer chooses.
const MOST_INTERMEDIATES: usize = 8;

/// What a peer shows: its leaf certificate, and others towards an authority.
#[derive(Clone, Copy, Debug)]
pub struct PeerChain<'c> {
    pub leaf: &'c CertificateDer<'c>,
    pub intermediates: &'c [CertificateDer<'c>],
}

impl<'c> PeerChain<'c> {
    fn certificates(self) -> impl Iterator<Item = &'c CertificateDer<'c>> {
        std::iter::once(self.leaf).chain(self.intermediates)
    }
}

/// Who a peer is, and what that rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub id: PeerId,
    /// When the certificates are good that prove it, from the peer's own to the authority's.
    pub validity: Validity,
    /// When the CRLs can tell that none of them is revoked.
    pub unrevoked: Validity,
}

/// When the CRLs of a trust domain say what has to be known of its certificates.
fn telling(revocation: Option<&Revocation>) -> Validity {
    revocation.map_or(Validity::ALWAYS, Revocation::validity)
}

/// The rule a peer breaks.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error("{id} is of a trust domain that there is no bundle for")]
    ForeignDomain { id: SpiffeId },
    #[error("the certificate of {id} does not chain to the bundle of its trust domain: {error}")]
    Chain { id: SpiffeId, error: PathError },
    #[error("the peer proved to be {found}, which is not expected here")]
    Unexpected { found: SpiffeId },
    #[error("the certificate does not chain to an authority that is trusted here: {0}")]
    Untrusted(PathError),
    #[error("the certificate has none of the names that are expected here")]
    NoExpectedName,
    #[error("the certificate {0} is not pinned here")]
    NotPinned(PeerId),
    #[error("the certificate is not valid now")]
    NotValidNow,
    #[error("no status of the certificate is known, as the trust domain {0} has no usable CRL")]
    NoCrl(TrustDomain),
    #[error("the peer sends {0} intermediate certificates, more than anybody needs")]
    TooLong(usize),
    #[error("the peer showed no certificate that says who it is")]
    Anonymous,
    #[error("no peer identity is configured for this destination")]
    Nobody,
    /// Where there are several ways to be believed, and none of them does.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    EveryWay(Vec<Refusal>),
}

impl Refusal {
    /// Who the peer claimed to be, where that is known.
    #[must_use]
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            Self::ForeignDomain { id }
            | Self::Chain { id, .. }
            | Self::Unexpected { found: id } => Some(PeerId::Spiffe(id.clone())),
            Self::NotPinned(id) => Some(id.clone()),
            Self::EveryWay(refusals) => refusals.iter().find_map(Self::peer),
            _ => None,
        }
    }
}

/// Judges peers for one workload and one expectation.
#[derive(Clone, Debug)]
pub struct Judge {
    pub trust: Trust,
    pub expectation: Expectation,
    pub algorithms: WebPkiSupportedAlgorithms,
}

impl Judge {
    /// Who the peer is, if it is somebody who is expected. That it has the key is proved elsewhere.
    ///
    /// # Errors
    /// Of several ways that all fail, the reason of each.
    pub fn judge(&self, peer: PeerChain<'_>, role: Role, now: UnixTime) -> Result<Judged, Refusal> {
        if peer.intermediates.len() > MOST_INTERMEDIATES {
            return Err(Refusal::TooLong(peer.intermediates.len()));
        }
        let mut refusals = Vec::new();
        for way in self.expectation.ways() {
            match self.judge_by(way, peer, role, now) {
                Ok(judged) => return Ok(judged),
                Err(refusal) => refusals.push(refusal),
            }
        }
        Err(match refusals.len() {
            0 => Refusal::Nobody,
            1 => refusals.remove(0),
            _ => Refusal::EveryWay(refusals),
        })
    }

    fn judge_by(
        &self,
        way: &Way,
        peer: PeerChain<'_>,
        role: Role,
        now: UnixTime,
    ) -> Result<Judged, Refusal> {
        let judged = match &way.proof {
            Proof::Spiffe(expected) => self.spiffe(peer, role, now, expected)?,
            Proof::Chain { anchors, revocation, names } => {
                let revocation = revocation.as_deref();
                let validity = self
                    .verify_chain(peer, role, now, anchors, revocation)
                    .map_err(Refusal::Untrusted)?;
                let id = expected_name(peer.leaf, names)?;
                Judged { id, validity, unrevoked: telling(revocation) }
            }
            Proof::Pinned => return pinned(peer.leaf, &way.pins, now),
        };
        if !way.pins.is_empty() {
            pinned(peer.leaf, &way.pins, now)?;
        }
        Ok(judged)
    }

    fn spiffe(
        &self,
        peer: PeerChain<'_>,
        role: Role,
        now: UnixTime,
        expected: &[SpiffeId],
    ) -> Result<Judged, Refusal> {
        let id = spiffe_id_of(peer.leaf)?;
        let Some(domain) = self.trust.domain(id.trust_domain()) else {
            return Err(Refusal::ForeignDomain { id });
        };
        let revocation = domain.revocation.as_deref();
        if revocation.is_some_and(Revocation::denies_everybody) {
            return Err(Refusal::NoCrl(id.trust_domain().clone()));
        }
        match self.verify_chain(peer, role, now, domain.bundle.anchors(), revocation) {
            Err(error) => Err(Refusal::Chain { id, error }),
            // Byte for byte.
            Ok(validity) if expected.contains(&id) => {
                Ok(Judged { id: id.into(), validity, unrevoked: telling(revocation) })
            }
            Ok(_) => Err(Refusal::Unexpected { found: id }),
        }
    }

    /// Verifies a chain, if that has not been done. Returns when its certificates are good.
    fn verify_chain(
        &self,
        peer: PeerChain<'_>,
        role: Role,
        now: UnixTime,
        anchors: &Anchors,
        revocation: Option<&Revocation>,
    ) -> Result<Validity, PathError> {
        let algorithms = self.algorithms.all;
        let claim = Claim {
            chain: Fingerprint::of_sequence(peer.certificates().map(AsRef::as_ref)),
            role,
            anchors: anchors.fingerprint(),
            revocation: revocation.map(Revocation::fingerprint),
            algorithms: (algorithms.as_ptr().addr(), algorithms.len()),
        };
        let crls = telling(revocation);
        let verified = self.trust.verified();
        if let Some(validity) = verified.find(&claim, crls, now) {
            return Ok(validity);
        }
        let search = Search { role, now, anchors, revocation, algorithms };
        let Proven { validity, used } = search.prove(peer)?;
        // Nobody has vouched for what is not on the path: with a bit of it changed each time, one good chain
        // would crowd out all others.
        if used == peer.intermediates.len() && validity.and(crls).contains(now) {
            verified.remember(claim, validity);
        }
        Ok(validity)
    }
}

fn pinned(leaf: &CertificateDer<'_>, pins: &[Pin], now: UnixTime) -> Result<Judged, Refusal> {
    let facts = CertificateFacts::of(leaf).map_err(|_| LeafError::Malformed)?;
    let id = PeerId::Pinned(facts.fingerprint);
    if !pins.iter().any(|pin| pin.matches(&facts)) {
        return Err(Refusal::NotPinned(id));
    }
    let validity = Validity::stated(&facts).unwrap_or(Validity::NEVER);
    if !validity.contains(now) {
        return Err(Refusal::NotValidNow);
    }
    Ok(Judged { id, validity, unrevoked: telling(None) })
}

fn expected_name(leaf: &CertificateDer<'_>, names: &Names) -> Result<PeerId, Refusal> {
    let certificate =
        EndEntityCert::try_from(leaf).map_err(|error| Refusal::Untrusted(error.into()))?;
    for uri in certificate.valid_uri_names() {
        if let Some(expected) = names.uris.iter().find(|expected| ***expected == *uri) {
            return Ok(PeerId::Uri(expected.clone()));
        }
    }
    names
        .dns
        .iter()
        .find(|name| is_valid_for(&certificate, name))
        .map(|name| PeerId::Dns(name.clone()))
        .ok_or(Refusal::NoExpectedName)
}

fn is_valid_for(certificate: &EndEntityCert<'_>, name: &str) -> bool {
    DnsName::try_from(name).is_ok_and(|name| {
        certificate.verify_is_valid_for_subject_name(&ServerName::DnsName(name)).is_ok()
    })
}
