use super::*;
use proptest::prelude::*;
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PublicKeyData, SanType, SignatureAlgorithm,
};

fn request(algorithm: &'static SignatureAlgorithm) -> (Vec<u8>, Vec<u8>) {
    let pair = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        vec![SanType::URI("spiffe://example.org/ns/kube-system/sa/admin".try_into().unwrap())];
    let der = params.serialize_request(&pair).unwrap().der().to_vec();
    (der, pair.subject_public_key_info())
}

#[test]
fn the_key_is_taken_and_nothing_else() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let (der, expected) = request(algorithm);
        assert_eq!(key(&der).unwrap().subject_public_key_info(), expected);
    }
}

#[test]
fn other_kinds_of_keys_are_refused() {
    let (der, _) = request(&PKCS_ECDSA_P521_SHA512);
    assert_eq!(key(&der), Err(CsrError::KeyKind));
}

#[test]
fn a_request_for_somebody_elses_key_is_refused() {
    let [(mine, _), (_, other)] = [(); 2].map(|()| request(&PKCS_ECDSA_P256_SHA256));
    let (point, other) = (&mine[..], &other[other.len() - 65..]);
    // The point of the key: it stands once in the request.
    let own = key(&mine).unwrap().subject_public_key_info();
    let at = point.windows(65).position(|bytes| bytes == &own[own.len() - 65..]).unwrap();
    let mut stolen = mine.clone();
    stolen[at..at + 65].copy_from_slice(other);
    assert_eq!(key(&stolen), Err(CsrError::Signature));
}

#[test]
fn what_is_too_long_or_goes_on_is_refused() {
    let (mut der, _) = request(&PKCS_ECDSA_P256_SHA256);
    der.push(0);
    assert_eq!(key(&der), Err(CsrError::Malformed));
    assert_eq!(key(&vec![0x30; LONGEST + 1]), Err(CsrError::TooLong));
    assert_eq!(key(&[]), Err(CsrError::Malformed));
}

/// A compressed point names the same key in other bytes, which not every verifier reads.
#[test]
fn a_compressed_point_is_refused() {
    let (der, spki) = request(&PKCS_ECDSA_P256_SHA256);
    let mut changed = der.clone();
    let at = der.windows(65).position(|bytes| bytes == &spki[spki.len() - 65..]).unwrap();
    changed[at] = 2;
    assert_eq!(key(&changed), Err(CsrError::KeyKind));
}

proptest! {
    /// Around what is signed the parser is lenient, which changes nothing.
    #[test]
    fn with_a_changed_bit_it_is_the_same_key_or_none(
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let (mut der, spki) = request(&PKCS_ECDSA_P256_SHA256);
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        if let Ok(key) = key(&der) {
            prop_assert_eq!(key.subject_public_key_info(), spki);
        }
    }

    #[test]
    fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(key(&bytes).is_err());
    }

    #[test]
    fn a_part_is_refused(length in any::<prop::sample::Index>()) {
        let (der, _) = request(&PKCS_ED25519);
        prop_assert!(key(&der[..length.index(der.len())]).is_err());
    }
}
