//! Chains that have been verified, so that a known peer costs no signatures.
//!
//! Only a proof is remembered: that a chain leads to these authorities, and that none of these CRLs revokes it. It is
//! part of the answer to who a peer is. Whether the peer may be here is asked each time, and so is whether
//! certificates and CRLs are good now; that the peer has the key is proved in each handshake. A [`Claim`] names everything by
//! its content, so a proof holds for every workload, and nothing has to be forgotten when trust changes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls_pki_types::{CertificateDer, UnixTime};

use super::chains::{Chain, ChainsInUse};
use super::validity::Validity;
use crate::flow::Role;
use crate::metrics::{Counter, Registry, RegistryError, Scalar};
use crate::x509::Fingerprint;

/// Proofs that are remembered at most; together they take less than a megabyte.
const CAPACITY: usize = 4096;

/// What a proof is about: everything that decides whether a chain is good, except the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    /// The certificates that the peer has sent.
    pub chain: Fingerprint,
    pub role: Role,
    pub anchors: Fingerprint,
    /// The CRLs, and what to do if they give no answer; `None` without CRLs.
    pub revocation: Option<Fingerprint>,
    /// The signature algorithms that are accepted: address and length of their static list.
    pub algorithms: (usize, usize),
}

/// The latest proofs. Those in use stay.
#[derive(Default)]
pub struct VerifiedChains {
    proofs: Mutex<Generations>,
    /// What the peers of live sessions have shown.
    in_use: Mutex<ChainsInUse>,
    hits: Counter,
    misses: Counter,
}

impl VerifiedChains {
    /// When the certificates of a proof of `claim` are valid. `None` if there is no proof, or the certificates or the CRLs
    /// are not valid `now`.
    pub(super) fn find(&self, claim: &Claim, crls: Validity, now: UnixTime) -> Option<Validity> {
        let is_good = |validity: &Validity| validity.and(crls).contains(now);
        let validity = self.lock().get(claim).filter(is_good);
        let counter = if validity.is_some() { &self.hits } else { &self.misses };
        counter.increment();
        validity
    }

    /// Remembers that `claim` has been proved, and when the certificates are good that prove it.
    pub(super) fn remember(&self, claim: Claim, validity: Validity) {
        self.lock().insert(claim, validity);
    }

    /// A chain with its fingerprint, in memory once for as long as it is in use.
    #[must_use]
    pub fn share(&self, chain: Vec<CertificateDer<'static>>) -> (Fingerprint, Chain) {
        let fingerprint = Fingerprint::of_sequence(chain.iter().map(AsRef::as_ref));
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        (fingerprint, in_use.shared(fingerprint, chain))
    }

    /// How often a proof was found, since the start.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.get()
    }

    /// How often a proof had to be made, or could not be.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.misses.get()
    }

    /// Proofs that are remembered.
    #[must_use]
    pub fn entries(&self) -> usize {
        let proofs = self.lock();
        proofs.recent.len() + proofs.older.len()
    }

    /// Registers its counters.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) -> Result<(), RegistryError> {
        registry.register(
            "verified_chain_hits",
            "Certificate chains of peers that had been verified before.",
            self,
            |chains| &chains.hits,
        )?;
        registry.register(
            "verified_chain_misses",
            "Certificate chains of peers that had to be verified, whatever came of it.",
            self,
            |chains| &chains.misses,
        )?;
        let chains = self.clone();
        registry.register_read(
            Scalar::Gauge,
            "verified_chain_entries",
            "Verified certificate chains that are remembered.",
            move || Some(chains.entries() as u64),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for VerifiedChains {
    /// Without the proofs: there may be thousands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedChains").field("entries", &self.entries()).finish_non_exhaustive()
    }
}

/// Two halves: when the recent one is full it becomes the older one, and what nobody has asked for meanwhile
/// is forgotten with the older one before it.
#[derive(Default)]
struct Generations {
    recent: HashMap<Claim, Validity>,
    older: HashMap<Claim, Validity>,
}

impl Generations {
    fn get(&mut self, claim: &Claim) -> Option<Validity> {
        if let Some(validity) = self.recent.get(claim) {
            return Some(*validity);
        }
        let validity = self.older.remove(claim)?;
        self.insert(*claim, validity);
        Some(validity)
    }

    fn insert(&mut self, claim: Claim, validity: Validity) {
        if self.recent.len() == CAPACITY / 2 && !self.recent.contains_key(&claim) {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(claim, validity);
    }
}

#[cfg(test)]
mod tests;
