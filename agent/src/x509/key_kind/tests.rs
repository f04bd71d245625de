use super::*;
use rustls_pki_types::{PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

/// Something in DER: a tag, a length and a content (X.690, 8.1).
fn der(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let length = match content.len() {
        short @ ..0x80 => vec![short as u8],
        long => [vec![0x82], (long as u16).to_be_bytes().to_vec()].concat(),
    };
    [vec![tag], length, content].concat()
}

fn sequence(content: &[&[u8]]) -> Vec<u8> {
    der(0x30, content)
}

fn oid(oid: &Oid<'_>) -> Vec<u8> {
    der(6, &[oid.as_bytes()])
}

fn pkcs8(algorithm: &Oid<'_>, parameters: &[u8], key: &[u8]) -> PrivateKeyDer<'static> {
    let algorithm = sequence(&[&oid(algorithm), parameters]);
    PrivatePkcs8KeyDer::from(sequence(&[&[2, 1, 0], &algorithm, &der(4, &[key])])).into()
}

fn rsa_key(bits: usize) -> Vec<u8> {
    let modulus = [vec![0], vec![0xff; bits / 8]].concat();
    sequence(&[&[2, 1, 0], &der(2, &[&modulus])])
}

fn sec1_key(curve: &Oid<'_>) -> PrivateKeyDer<'static> {
    let key = sequence(&[&[2, 1, 1], &der(4, &[&[7; 32]]), &der(0xa0, &[&oid(curve)])]);
    PrivateSec1KeyDer::from(key).into()
}

#[test]
fn each_kind_of_key_that_cannot_be_used_has_a_reason_of_its_own() {
    for (key, expected) in [
        (pkcs8(&RSA_PSS, &[], &rsa_key(2048)), "RSASSA-PSS"),
        (pkcs8(&RSA, &[5, 0], &rsa_key(1024)), "an RSA key of 1024 bits, where 2048 to 8192"),
        (PrivatePkcs1KeyDer::from(rsa_key(1024)).into(), "an RSA key of 1024 bits"),
        (pkcs8(&EC, &oid(&SECP256K1), &[]), "on the curve secp256k1"),
        (sec1_key(&SECP256K1), "on the curve secp256k1"),
        (pkcs8(&ED448, &[], &[4, 0]), "an Ed448 key"),
        (pkcs8(&X25519, &[], &[4, 0]), "signs nothing"),
        (pkcs8(&DSA, &[], &[2, 1, 7]), "a DSA key"),
        (pkcs8(&oid!(2.16.840.1.101.3.4.3.18), &[], &[]), "algorithm 2.16.840.1.101.3.4.3.18"),
    ] {
        let reason = why_unusable(&key).to_string();
        assert!(reason.contains(expected) && reason.contains("P-256"), "{expected}: {reason}");
    }
    for damaged in [
        pkcs8(&EC, &oid(&P256), &[1, 2, 3]),
        pkcs8(&RSA, &[5, 0], &rsa_key(2048)),
        sec1_key(&P384),
        PrivatePkcs8KeyDer::from(vec![0x30, 0x84]).into(),
    ] {
        assert_eq!(why_unusable(&damaged), UnusableKey::Damaged);
    }
}
