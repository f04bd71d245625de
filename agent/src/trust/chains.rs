//! The chains of peers, each in memory once, however many sessions were opened with it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use rustls_pki_types::CertificateDer;

use crate::x509::Fingerprint;

/// A peer's certificates, its own first.
pub type Chain = Arc<[CertificateDer<'static>]>;

/// Chains that may be known before those out of use are removed.
const FEW: usize = 64;

/// Chains in use, by their content.
#[derive(Default)]
pub(super) struct ChainsInUse {
    known: HashMap<Fingerprint, Weak<[CertificateDer<'static>]>>,
    /// How many may be known before those out of use are removed again.
    enough: usize,
}

impl ChainsInUse {
    /// The chain in use with this fingerprint. If there is none, this chain is the one in use from now on.
    pub fn shared(
        &mut self,
        fingerprint: Fingerprint,
        chain: Vec<CertificateDer<'static>>,
    ) -> Chain {
        if let Some(known) = self.known.get(&fingerprint).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() >= self.enough {
            self.known.retain(|_, chain| chain.strong_count() > 0);
            // It grows with what is in use, so that each new chain costs the same, on average.
            self.enough = 2 * self.known.len() + FEW;
        }
        let chain = Chain::from(chain);
        self.known.insert(fingerprint, Arc::downgrade(&chain));
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(of: u32) -> (Fingerprint, Vec<CertificateDer<'static>>) {
        let der = of.to_be_bytes().to_vec();
        (Fingerprint::of(&der), vec![CertificateDer::from(der)])
    }

    #[test]
    fn a_chain_is_held_once_and_only_while_it_is_in_use() {
        let mut chains = ChainsInUse::default();
        let mut share = |of| {
            let (fingerprint, der) = chain(of);
            chains.shared(fingerprint, der)
        };
        let (one, same, other) = (share(1), share(1), share(2));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        let gone = Arc::downgrade(&other);
        drop(other);
        assert!(gone.upgrade().is_none());
        assert_eq!(share(2)[0].as_ref(), 2_u32.to_be_bytes());
    }

    #[test]
    fn chains_that_nobody_uses_do_not_add_up() {
        let mut chains = ChainsInUse::default();
        let (fingerprint, der) = chain(0);
        let kept = chains.shared(fingerprint, der.clone());
        for of in 1..10_000 {
            let (fingerprint, der) = chain(of);
            drop(chains.shared(fingerprint, der));
            assert!(chains.known.len() <= 2 + 2 * FEW);
        }
        assert!(Arc::ptr_eq(&kept, &chains.shared(fingerprint, der)));
    }
}
