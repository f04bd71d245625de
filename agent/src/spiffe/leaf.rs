//! What makes a leaf certificate an X.509-SVID of a workload (X509-SVID, sections 2 to 4), apart from its
//! chain.

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{SpiffeError, SpiffeId};

/// The rule a leaf certificate breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    #[error("the certificate cannot be parsed")]
    Malformed,
    #[error("the certificate has no URI name, so no SPIFFE ID")]
    NoUri,
    #[error("the certificate has more than one URI name")]
    SeveralUris,
    #[error("the certificate's URI name {0}")]
    SpiffeId(#[from] SpiffeError),
    #[error("the certificate is a CA's, not a workload's")]
    Ca,
    #[error("the certificate may sign certificates or CRLs, which a workload's must not")]
    SigningUsage,
    #[error("the certificate lacks the key usage digitalSignature")]
    NoDigitalSignature,
}

/// The SPIFFE ID of a leaf certificate that keeps the rules.
///
/// # Errors
/// The first rule that it breaks.
pub fn spiffe_id_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, LeafError> {
    let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|_| LeafError::Malformed)?;
    if !rest.is_empty() {
        return Err(LeafError::Malformed);
    }
    let constraints = certificate.basic_constraints().map_err(|_| LeafError::Malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(LeafError::Ca);
    }
    // Key usage is mandatory in an SVID (X509-SVID, 4.3).
    let usage = certificate.key_usage().map_err(|_| LeafError::Malformed)?;
    let usage = usage.ok_or(LeafError::NoDigitalSignature)?.value;
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(LeafError::SigningUsage);
    }
    if !usage.digital_signature() {
        return Err(LeafError::NoDigitalSignature);
    }
    let uri = single_uri(&certificate)?;
    // x509-parser is lenient about encodings. webpki, which verifies the chain, must read the same name.
    if EndEntityCert::try_from(leaf).is_ok_and(|judged| !judged.valid_uri_names().eq([uri])) {
        return Err(LeafError::Malformed);
    }
    Ok(uri.parse()?)
}

fn single_uri<'c>(certificate: &'c X509Certificate<'_>) -> Result<&'c str, LeafError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| LeafError::Malformed)?
        .ok_or(LeafError::NoUri)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(Ok(*uri)),
        GeneralName::Invalid(..) => Some(Err(LeafError::Malformed)),
        _ => None,
    });
    let first = uris.next().ok_or(LeafError::NoUri)??;
    match uris.next() {
        None => Ok(first),
        Some(_) => Err(LeafError::SeveralUris),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        KeyUsagePurpose, SanType,
    };

    fn leaf(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("spiffe://example.org/web")];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn a_proper_svid_yields_its_id() {
        let id = spiffe_id_of(&leaf(|_| {})).unwrap();
        assert_eq!(id.as_str(), "spiffe://example.org/web");
    }

    #[test]
    fn each_broken_rule_is_named() {
        let cases: [(LeafError, CertificateDer<'static>); 8] = [
            (LeafError::NoUri, leaf(|p| p.subject_alt_names.clear())),
            (
                LeafError::NoUri,
                leaf(|p| p.subject_alt_names = vec![SanType::DnsName("web".try_into().unwrap())]),
            ),
            (
                LeafError::SeveralUris,
                leaf(|p| p.subject_alt_names.push(uri("spiffe://example.org/other"))),
            ),
            (
                LeafError::SpiffeId(SpiffeError::Scheme),
                leaf(|p| p.subject_alt_names = vec![uri("https://example.org/web")]),
            ),
            (LeafError::Ca, leaf(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
            (LeafError::SigningUsage, leaf(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign))),
            (LeafError::SigningUsage, leaf(|p| p.key_usages.push(KeyUsagePurpose::CrlSign))),
            (LeafError::NoDigitalSignature, leaf(|p| p.key_usages.clear())),
        ];
        for (expected, certificate) in cases {
            assert_eq!(spiffe_id_of(&certificate), Err(expected));
        }
        assert_eq!(
            spiffe_id_of(&CertificateDer::from(vec![0x30, 0x03, 1])),
            Err(LeafError::Malformed)
        );
    }
    #[test]
    fn a_name_that_is_not_der_is_refused() {
        let proper = leaf(|_| {});
        let mut der = proper.to_vec();
        let uri = der.windows(10).position(|w| w.ends_with(b"spiffe:/")).unwrap();
        assert_eq!(der[uri], 0x86, "[6] IMPLICIT IA5String (RFC 5280, 4.2.1.6)");
        der[uri] |= 0x20;
        assert_eq!(spiffe_id_of(&der.into()), Err(LeafError::Malformed));
    }
}
