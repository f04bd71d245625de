//! When to renew an SVID.

use std::time::SystemTime;

use super::Svid;
use crate::sys::clock;

/// Waits until an SVID must be renewed: at `renewal`, or as soon as the SVID is not valid yet by the clock, which then was
/// ahead and has been corrected.
pub async fn due(svid: &Svid, renewal: SystemTime) {
    clock::reaches(|now| is_due(svid, renewal, now)).await;
}

fn is_due(svid: &Svid, renewal: SystemTime, now: SystemTime) -> bool {
    renewal <= now || svid.is_not_valid_yet(now)
}

/// A time within the sixth tenth of the SVID's life, by a jitter between 0 and 1. It spreads the renewals of workloads that
/// started together.
#[must_use]
pub fn renewal_of(svid: &Svid, jitter: f64) -> SystemTime {
    let life = svid.facts.not_after.duration_since(svid.issued).unwrap_or_default();
    svid.issued + life.mul_f64(0.5 + jitter / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::testing::{Ca, svid};
    use crate::x509::{CertificateFacts, KeyPair};

    #[test]
    fn renewal_falls_into_the_sixth_tenth_of_the_lifetime() {
        let leaf = Ca::new("example.org").issue(svid("spiffe://example.org/web", |_| {}));
        let facts = CertificateFacts::of(&leaf.chain[0]).unwrap();
        let mut svid = Svid::new(KeyPair { key: leaf.certified(), facts }, None, None).unwrap();
        svid.facts.not_after = svid.issued + std::time::Duration::from_secs(1000);
        for jitter in [0.0, 0.3, 1.0] {
            let wait = renewal_of(&svid, jitter).duration_since(svid.issued).unwrap().as_secs();
            assert!((500..=600).contains(&wait), "{wait}");
        }
    }

    #[test]
    fn an_svid_that_is_not_valid_yet_is_renewed_whatever_was_planned() {
        let leaf = Ca::new("example.org").issue(svid("spiffe://example.org/web", |_| {}));
        let facts = CertificateFacts::of(&leaf.chain[0]).unwrap();
        let svid = Svid::new(KeyPair { key: leaf.certified(), facts }, None, None).unwrap();
        let (second, begin) = (std::time::Duration::from_secs(1), svid.facts.not_before);
        let renewal = begin + 1000 * second;
        // The clock is set back by ever so much.
        for now in [begin - second, begin - 10_000 * second, SystemTime::UNIX_EPOCH] {
            assert!(is_due(&svid, renewal, now));
        }
        for now in [begin, begin + second, renewal - second] {
            assert!(!is_due(&svid, renewal, now));
        }
        assert!(is_due(&svid, renewal, renewal));
    }
}
