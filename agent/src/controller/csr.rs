//! Certification requests (RFC 2986). Only the key of one is used, and only if whoever asks has it.

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::aws_lc_rs::{ECDSA_P256_SHA256, ECDSA_P384_SHA384, ED25519};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// Bytes of the longest request that is looked at. Real ones have some 200.
pub const LONGEST: usize = 4096;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("the certification request is longer than {LONGEST} bytes")]
    TooLong,
    #[error("the certification request is no PKCS #10 in DER")]
    Malformed,
    #[error("the key of the certification request is neither P-256 nor P-384 nor Ed25519")]
    KeyKind,
    #[error(
        "the certification request is not signed with its own key, or by another algorithm than the key's"
    )]
    Signature,
}

/// A kind of key that may be certified.
struct Kind {
    /// Content of the key's AlgorithmIdentifier in DER, and that of the signature's.
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    /// Bytes of a key: for curves, of a point that is not compressed.
    length: usize,
    first: Option<u8>,
}

const KINDS: [Kind; 3] = [
    Kind { algorithm: ECDSA_P256_SHA256, length: 65, first: Some(4) },
    Kind { algorithm: ECDSA_P384_SHA384, length: 97, first: Some(4) },
    Kind { algorithm: ED25519, length: 32, first: None },
];

/// The public key of a request, in DER (SubjectPublicKeyInfo).
///
/// # Errors
/// If it is no request, its key is of another kind, or whoever made it does not have the key.
pub fn key(der: &[u8]) -> Result<SubjectPublicKeyInfo, CsrError> {
    if der.len() > LONGEST {
        return Err(CsrError::TooLong);
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let info = &request.certification_request_info;
    let spki =
        SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| CsrError::KeyKind)?;
    let point: &[u8] = &info.subject_pki.subject_public_key.data;
    let is_kind = |kind: &&Kind| {
        content(info.subject_pki.raw) == Some(kind.algorithm.public_key_alg_id().as_ref())
            && point.len() == kind.length
            && kind.first.is_none_or(|first| point.first() == Some(&first))
    };
    let kind = KINDS.iter().find(is_kind).ok_or(CsrError::KeyKind)?;
    // What stands behind the part that is signed begins with the algorithm.
    let behind = signed_by(der, info.raw).ok_or(CsrError::Malformed)?;
    if behind != kind.algorithm.signature_alg_id().as_ref() {
        return Err(CsrError::Signature);
    }
    kind.algorithm
        .verify_signature(point, info.raw, &request.signature_value.data)
        .map_err(|_| CsrError::Signature)?;
    Ok(spki)
}

/// The content of the first element within a SEQUENCE, which is a SEQUENCE too.
fn content(sequence: &[u8]) -> Option<&[u8]> {
    use x509_parser::asn1_rs::{Any, FromDer as _};
    let (_, outer) = Any::from_der(sequence).ok()?;
    let (_, inner) = Any::from_der(outer.data).ok()?;
    Some(inner.data)
}

/// The content of the AlgorithmIdentifier of a request's signature.
fn signed_by<'d>(der: &'d [u8], info: &[u8]) -> Option<&'d [u8]> {
    use x509_parser::asn1_rs::{Any, FromDer as _};
    let (_, outer) = Any::from_der(der).ok()?;
    let behind = outer.data.get(info.len()..)?;
    let (_, algorithm) = Any::from_der(behind).ok()?;
    Some(algorithm.data)
}

#[cfg(test)]
mod tests;
