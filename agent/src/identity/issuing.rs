//! What the certificates look like that Sheath's own CAs make: the embedded one of a node, and the controller's.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::crypto::SecureRandom;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::spiffe::{SpiffeId, TrustDomain};
use crate::x509::{self, CertificateFacts, UnusableKey, X509Error};

/// Certificates become valid a little before they are used: the peer's clock may be behind.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// An X.509-SVID of a workload (X509-SVID, 4).
///
/// # Errors
/// None that is known: a SPIFFE ID is ASCII.
pub fn svid(
    id: &SpiffeId,
    serial: [u8; 16],
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    // An empty subject would make the alternative name critical, which some peers refuse.
    params.distinguished_name = common_name("Sheath workload");
    params.subject_alt_names = vec![uri(id.as_str())?];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    Ok(params)
}

/// A certificate that signs others of a trust domain, with at most so many authorities between it and theirs.
///
/// # Errors
/// None that is known: a trust domain is ASCII.
pub fn authority(
    name: &str,
    trust_domain: &TrustDomain,
    below: u8,
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.subject_alt_names = vec![uri(&trust_domain.id())?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    Ok(params)
}

/// Why a key is not that of an authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitKey {
    #[error(transparent)]
    Malformed(#[from] X509Error),
    #[error("the key cannot be used: {0}")]
    Unusable(#[from] UnusableKey),
    #[error("the certificate does not belong to the key beside it")]
    Other,
}

/// The key of an authority, in PEM.
///
/// # Errors
/// If it is none, or another one's.
pub fn key(pem: &[u8], authority: &CertificateFacts) -> Result<Zeroizing<KeyPair>, UnfitKey> {
    // Not with rcgen's parser, which leaves copies in memory.
    let der = x509::private_key(pem)?;
    let key = KeyPair::try_from(&*der).map_err(|_| x509::why_unusable(&der))?;
    let key = Zeroizing::new(key);
    if key.subject_public_key_info() != authority.public_key {
        return Err(UnfitKey::Other);
    }
    Ok(key)
}

/// The URI names of a certificate. An authority has that of its trust domain.
#[must_use]
pub fn uri_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect()
}

/// 127 random bits: positive, and unique without a register (RFC 5280, 4.1.2.2).
#[must_use]
pub fn serial(random: &dyn SecureRandom) -> [u8; 16] {
    let mut serial = [0; 16];
    if random.fill(&mut serial).is_err() {
        // Cannot happen: without randomness there would be no key.
        serial = [1; 16];
    }
    serial[0] = serial[0] & 0x3f | 0x40;
    serial
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn uri(text: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(text.try_into()?))
}
