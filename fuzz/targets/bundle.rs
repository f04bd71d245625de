//! The certificates of a trust bundle, as a file or a SPIFFE provider has them.
//!
//! A bundle is believed as a whole or not at all, and what is believed stands in its certificates.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use sheath::spiffe::TrustDomain;
use sheath::trust::TrustBundle;
use sheath::x509::concatenated_certificates;

fuzz_target!(|der: &[u8]| {
    let domain: TrustDomain = "example.org".parse().expect("a trust domain");
    let certificates = certificates(der);
    // What the agent takes apart itself is all there, in order.
    if let Ok(apart) = concatenated_certificates(der) {
        let together: Vec<u8> = apart.iter().flat_map(|part| part.to_vec()).collect();
        assert_eq!(together, der);
    }
    let each: Vec<_> = certificates
        .iter()
        .map(|certificate| TrustBundle::new(domain.clone(), vec![certificate.clone()]))
        .collect();
    let Ok(bundle) = TrustBundle::new(domain.clone(), certificates.clone()) else {
        assert!(each.is_empty() || each.iter().any(Result::is_err));
        return;
    };
    assert_eq!(bundle.trust_domain(), &domain);
    let anchors = bundle.anchors().as_slice();
    assert_eq!(anchors.len(), certificates.len());
    for ((anchor, alone), certificate) in anchors.iter().zip(each).zip(&certificates) {
        let alone = alone.expect("part of the bundle");
        assert_eq!(std::slice::from_ref(anchor), alone.anchors().as_slice());
        assert!(!anchor.subject_public_key_info.is_empty());
        for part in [&anchor.subject, &anchor.subject_public_key_info] {
            assert!(part.is_empty() || certificate.windows(part.len()).any(|w| w == &part[..]));
        }
    }
});

/// Certificates that follow one another, as SPIFFE's Workload API puts them.
fn certificates(mut der: &[u8]) -> Vec<CertificateDer<'static>> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        let (first, rest) = der.split_at(element_length(der).unwrap_or(der.len()).min(der.len()));
        certificates.push(CertificateDer::from(first.to_vec()));
        der = rest;
    }
    certificates
}

/// The length of the first element, header included (X.690, 8.1.3), up to what two bytes can say.
fn element_length(der: &[u8]) -> Option<usize> {
    match der {
        [_, length @ ..=0x7f, ..] => Some(2 + usize::from(*length)),
        [_, 0x81, length, ..] => Some(3 + usize::from(*length)),
        [_, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}
