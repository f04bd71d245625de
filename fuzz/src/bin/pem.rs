//! Files with certificates, keys and CRLs.
//!
//! What is read in them is there, and is read again from what it is written as.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sheath::trust::{OnDoubt, Revocation};
use sheath::x509::{CertificateFacts, CrlFacts, certificates, crls, next_update, private_key};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(found) = certificates(bytes) {
        assert!(!found.is_empty());
        for certificate in &found {
            let facts =
                CertificateFacts::of(certificate).expect("what was parsed when it was read");
            assert!(!facts.subject.contains(char::is_control));
            assert!(certificate.windows(facts.public_key.len()).any(|w| w == facts.public_key));
        }
        // The same file twice holds the same certificates twice.
        let twice = certificates(&[bytes, b"\n", bytes].concat());
        if let Ok(twice) = twice {
            assert_eq!(twice.len(), 2 * found.len());
        }
    }
    if private_key(bytes).is_ok() {
        // Two keys are none: nobody could say which is meant.
        assert!(private_key(&[bytes, b"\n", bytes].concat()).is_err());
    }
    if let Ok(lists) = crls(bytes) {
        assert!(!lists.is_empty());
        let all = Revocation::new(&lists, OnDoubt::Deny, OnDoubt::Deny);
        let is_usable = |list: &_| {
            Revocation::new(std::slice::from_ref(list), OnDoubt::Deny, OnDoubt::Deny).is_ok()
        };
        assert_eq!(all.is_ok(), lists.iter().all(is_usable));
        if let Ok(all) = all {
            assert!(!all.denies_everybody());
            for list in &lists {
                if let Some(facts) = CrlFacts::of(list) {
                    assert_eq!(next_update(list), facts.next_update);
                }
            }
        }
    }
});
