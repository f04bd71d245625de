//! A peer's leaf certificate, before anything has been verified.
//!
//! Whoever it is said to be stands in it byte for byte, and a second parser reads the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use sheath::spiffe::{LeafError, SpiffeId, spiffe_id_of};
use webpki::EndEntityCert;

fuzz_target!(|der: &[u8]| {
    let leaf = CertificateDer::from(der);
    let Ok(id) = spiffe_id_of(&leaf) else { return };
    assert_eq!(id.as_str().parse::<SpiffeId>().as_ref(), Ok(&id));

    let text = id.as_str().as_bytes();
    assert!(der.windows(text.len()).any(|window| window == text));

    // webpki judges the chain: what it takes the certificate for must be what we have read in it.
    if let Ok(certificate) = EndEntityCert::try_from(&leaf) {
        assert_eq!(certificate.valid_uri_names().collect::<Vec<_>>(), [id.as_str()]);
    }

    let longer = CertificateDer::from([der, b"\0"].concat());
    assert_eq!(spiffe_id_of(&longer), Err(LeafError::Malformed));
    let shorter = CertificateDer::from(&der[..der.len() - 1]);
    assert_eq!(spiffe_id_of(&shorter), Err(LeafError::Malformed));
});
