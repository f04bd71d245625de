//! Files with certificates, keys and CRLs.
//!
//! What is read in them is there, and is read again from what it is written as. Nothing is lost without a word: of a file that is
//! accepted, every BEGIN line has become an entry, or is a key's beside certificates, or certificates' beside a key.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sheath::trust::{OnDoubt, Revocation};
use sheath::x509::{
    CertificateFacts, CrlFacts, certificates, crls, next_update, private_key, sections,
};

/// Lines that begin a section, however that is written.
fn begin_lines(bytes: &[u8]) -> usize {
    const BEGIN: &[u8] = b"-----BEGIN";
    bytes.windows(BEGIN.len()).filter(|window| window.eq_ignore_ascii_case(BEGIN)).count()
}

/// Sections with one of these words in their label.
fn labelled(bytes: &[u8], words: &[&str]) -> usize {
    let found = sections(bytes).expect("what was taken apart before");
    found.iter().filter(|section| words.iter().any(|word| section.label.contains(word))).count()
}

const BESIDE: [&str; 2] = ["PRIVATE KEY", "PARAMETERS"];

fuzz_target!(|bytes: &[u8]| {
    if let Ok(found) = sections(bytes) {
        assert_eq!(found.len(), begin_lines(bytes));
        // Also where files were joined without a line break.
        let joined = [bytes.trim_ascii_end(), bytes].concat();
        if let Ok(twice) = sections(&joined) {
            assert_eq!(twice.len(), begin_lines(&joined));
        }
    }
    if let Ok(found) = certificates(bytes) {
        assert!(!found.is_empty());
        assert_eq!(found.len() + labelled(bytes, &BESIDE), begin_lines(bytes));
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
        assert_eq!(1 + labelled(bytes, &["CERTIFICATE", "PARAMETERS"]), begin_lines(bytes));
        // Two keys are none: nobody could say which is meant.
        assert!(private_key(&[bytes, b"\n", bytes].concat()).is_err());
    }
    if let Ok(lists) = crls(bytes) {
        assert!(!lists.is_empty());
        let is_der = bytes.first() == Some(&0x30);
        assert!(is_der || lists.len() == begin_lines(bytes));
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
