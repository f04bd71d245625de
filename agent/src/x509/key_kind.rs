//! What kind of key a private key is, where no handshake can be signed with it.

use rustls_pki_types::PrivateKeyDer;
use x509_parser::asn1_rs::{Any, Oid, oid};
use x509_parser::prelude::{AlgorithmIdentifier, FromDer};

const RSA: Oid<'_> = oid!(1.2.840.113549.1.1.1);
const RSA_PSS: Oid<'_> = oid!(1.2.840.113549.1.1.10);
const DSA: Oid<'_> = oid!(1.2.840.10040.4.1);
const EC: Oid<'_> = oid!(1.2.840.10045.2.1);
const ED25519: Oid<'_> = oid!(1.3.101.112);
const ED448: Oid<'_> = oid!(1.3.101.113);
const X25519: Oid<'_> = oid!(1.3.101.110);
const X448: Oid<'_> = oid!(1.3.101.111);

const P256: Oid<'_> = oid!(1.2.840.10045.3.1.7);
const P384: Oid<'_> = oid!(1.3.132.0.34);
const P521: Oid<'_> = oid!(1.3.132.0.35);
const SECP256K1: Oid<'_> = oid!(1.3.132.0.10);

/// Bits of an RSA modulus that the library signs with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const ADVICE: &str = "take ECDSA with P-256, or RSA with 2048 bits";

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKey {
    #[error("it is damaged, or no key at all")]
    Damaged,
    #[error("it is {0}, which is not supported; {ADVICE}")]
    Kind(&'static str),
    /// An algorithm without a name here, by its object identifier.
    #[error("it is a key of the algorithm {0}, which is not supported; {ADVICE}")]
    Algorithm(String),
    #[error(
        "it is an RSA key of {bits} bits, where {} to {} are needed; {ADVICE}",
        RSA_BITS.start(),
        RSA_BITS.end()
    )]
    Rsa { bits: usize },
    #[error("it is an ECDSA key on the curve {0}, which TLS does not know; {ADVICE}")]
    Curve(String),
}

/// Says why a key that the library refuses cannot be used.
#[must_use]
pub fn why_unusable(key: &PrivateKeyDer<'_>) -> UnusableKey {
    let reason = match key {
        PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => sec1(key.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(key) => pkcs8(key.secret_pkcs8_der()),
        _ => None,
    };
    reason.unwrap_or(UnusableKey::Damaged)
}

/// PrivateKeyInfo (RFC 5208, 5).
fn pkcs8(der: &[u8]) -> Option<UnusableKey> {
    let (_, info) = Any::from_der(der).ok()?;
    let (rest, _version) = u32::from_der(info.data).ok()?;
    let (rest, algorithm) = AlgorithmIdentifier::from_der(rest).ok()?;
    let (_, key) = Any::from_der(rest).ok()?;
    let kind = &algorithm.algorithm;
    if *kind == RSA {
        return rsa(key.data);
    }
    if *kind == EC {
        return curve(&algorithm.parameters?.oid().ok()?);
    }
    let names = [
        (RSA_PSS, "an RSA key for PSS signatures alone (RSASSA-PSS)"),
        (DSA, "a DSA key"),
        (ED448, "an Ed448 key"),
        (X25519, "an X25519 key, which signs nothing"),
        (X448, "an X448 key, which signs nothing"),
    ];
    match names.iter().find(|(oid, _)| oid == kind) {
        Some((_, name)) => Some(UnusableKey::Kind(name)),
        None if *kind == ED25519 => None,
        None => Some(UnusableKey::Algorithm(kind.to_string())),
    }
}

/// RSAPrivateKey (RFC 8017, A.1.2). `None` if its length is not what is wrong.
fn rsa(der: &[u8]) -> Option<UnusableKey> {
    let (_, key) = Any::from_der(der).ok()?;
    let (rest, _version) = u32::from_der(key.data).ok()?;
    let (_, modulus) = Any::from_der(rest).ok()?;
    let leading = modulus.data.iter().position(|byte| *byte != 0)?;
    let significant = &modulus.data[leading..];
    let bits = significant.len() * 8 - significant.first()?.leading_zeros() as usize;
    (!RSA_BITS.contains(&bits)).then_some(UnusableKey::Rsa { bits })
}

/// ECPrivateKey (RFC 5915, 3).
fn sec1(der: &[u8]) -> Option<UnusableKey> {
    let (_, key) = Any::from_der(der).ok()?;
    let (rest, _version) = u32::from_der(key.data).ok()?;
    let (rest, _secret) = Any::from_der(rest).ok()?;
    let (_, parameters) = Any::from_der(rest).ok()?;
    let (_, name) = Any::from_der(parameters.data).ok()?;
    curve(&name.oid().ok()?)
}

/// TLS 1.3 signs on three curves (RFC 8446, 4.2.3). `None` for one of these.
fn curve(oid: &Oid<'_>) -> Option<UnusableKey> {
    if [P256, P384, P521].contains(oid) {
        return None;
    }
    let name = if *oid == SECP256K1 { "secp256k1".to_owned() } else { oid.to_string() };
    Some(UnusableKey::Curve(name))
}

#[cfg(test)]
mod tests;
