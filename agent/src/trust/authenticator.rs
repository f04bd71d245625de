//! Authentication: who a peer is by what its certificates prove. The same in both directions, at the handshake and later.
//!
//! Whether it may be here is not asked. The result is an [`Identity`], about which policy decides.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;

use super::path::{PathError, Proven, Search};
use super::validity::Validity;
use super::verified::Claim;
use super::{Anchors, AuthenticationError, Authorities, Identity, Revocation, Trust};
use crate::flow::Role;
use crate::spiffe::{LeafError, spiffe_id_of};
use crate::x509::{CertificateFacts, Fingerprint};

/// Certificates that a peer may send besides its own. Real chains have one or two. With more, the peer would choose how much
/// work the search for a path is.
pub(super) const MOST_INTERMEDIATES: usize = 8;

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

/// How a peer proves who it is. That it has the key of its certificate is proved elsewhere, whatever the method.
#[derive(Clone, Copy, Debug)]
pub enum Method<'a> {
    /// By an X.509-SVID, which the bundle of its own trust domain vouches for.
    Svid,
    /// By a certificate for which one of these authorities vouches.
    Chain(&'a Authorities),
    /// By having the key alone: nobody vouches for anything that the certificate says.
    Key,
}

/// Finds out who peers are, by what one workload trusts.
#[derive(Clone, Debug)]
pub struct Authenticator {
    pub trust: Trust,
    pub algorithms: WebPkiSupportedAlgorithms,
}

/// A peer that has shown its certificates, at one time.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    authenticator: &'a Authenticator,
    chain: PeerChain<'a>,
    role: Role,
    now: UnixTime,
}

impl Authenticator {
    /// A peer that is to prove who it is.
    ///
    /// # Errors
    /// If it sends more certificates than are looked at.
    pub fn candidate<'a>(
        &'a self,
        chain: PeerChain<'a>,
        role: Role,
        now: UnixTime,
    ) -> Result<Candidate<'a>, AuthenticationError> {
        let sent = chain.intermediates.len();
        if sent > MOST_INTERMEDIATES {
            return Err(AuthenticationError::TooLong { sent });
        }
        Ok(Candidate { authenticator: self, chain, role, now })
    }
}

impl<'a> Candidate<'a> {
    /// Who the peer is, by one method.
    ///
    /// # Errors
    /// The rule that its certificates break.
    pub fn authenticate(&self, method: Method<'_>) -> Result<Identity<'a>, AuthenticationError> {
        match method {
            Method::Svid => self.svid(),
            Method::Chain(authorities) => self.named(authorities),
            Method::Key => self.key(),
        }
    }

    fn svid(&self) -> Result<Identity<'a>, AuthenticationError> {
        let id = spiffe_id_of(self.chain.leaf)?;
        let Some(domain) = self.authenticator.trust.domain(id.trust_domain()) else {
            return Err(AuthenticationError::ForeignDomain { id });
        };
        let revocation = domain.revocation.as_deref();
        if revocation.is_some_and(Revocation::denies_everybody) {
            return Err(AuthenticationError::NoCrl(id.trust_domain().clone()));
        }
        match self.verify_chain(domain.bundle.anchors(), revocation) {
            Ok(validity) => Ok(Identity::svid(self.chain.leaf, id, validity, telling(revocation))),
            Err(error) => Err(AuthenticationError::Chain { id, error }),
        }
    }

    fn named(&self, authorities: &Authorities) -> Result<Identity<'a>, AuthenticationError> {
        let revocation = authorities.revocation.as_deref();
        let validity = self
            .verify_chain(&authorities.anchors, revocation)
            .map_err(AuthenticationError::Untrusted)?;
        let certificate = EndEntityCert::try_from(self.chain.leaf)
            .map_err(|error| AuthenticationError::Untrusted(error.into()))?;
        Ok(Identity::named(self.chain.leaf, certificate, validity, telling(revocation)))
    }

    fn key(&self) -> Result<Identity<'a>, AuthenticationError> {
        let facts = CertificateFacts::of(self.chain.leaf).map_err(|_| LeafError::Malformed)?;
        let validity = Validity::stated(&facts).unwrap_or(Validity::NEVER);
        if !validity.contains(self.now) {
            return Err(AuthenticationError::NotValidNow(facts.fingerprint));
        }
        Ok(Identity::key(self.chain.leaf, facts, validity))
    }

    /// Verifies the chain, if that has not been done. Returns when its certificates are good.
    fn verify_chain(
        &self,
        anchors: &Anchors,
        revocation: Option<&Revocation>,
    ) -> Result<Validity, PathError> {
        let Self { authenticator, chain, role, now } = *self;
        let algorithms = authenticator.algorithms.all;
        let claim = Claim {
            chain: Fingerprint::of_sequence(chain.certificates().map(AsRef::as_ref)),
            role,
            anchors: anchors.fingerprint(),
            revocation: revocation.map(Revocation::fingerprint),
            algorithms: (algorithms.as_ptr().addr(), algorithms.len()),
        };
        let crls = telling(revocation);
        let verified = authenticator.trust.verified();
        if let Some(validity) = verified.find(&claim, crls, now) {
            return Ok(validity);
        }
        let search = Search { role, now, anchors, revocation, algorithms };
        let Proven { validity, used } = search.prove(chain)?;
        // Nobody has vouched for what is not on the path: with a bit of it changed each time, one good chain
        // would crowd out all others.
        if used == chain.intermediates.len() && validity.and(crls).contains(now) {
            verified.remember(claim, validity);
        }
        Ok(validity)
    }
}

/// When the CRLs of a trust domain cover its certificates.
fn telling(revocation: Option<&Revocation>) -> Validity {
    revocation.map_or(Validity::ALWAYS, Revocation::validity)
}
