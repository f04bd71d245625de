//! Facts about a certificate or a CRL, for people.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{
    ASN1Time, AlgorithmIdentifier, CertificateRevocationList, FromDer, X509Certificate, X509Name,
};

use super::{Fingerprint, X509Error};

/// Facts of one certificate. They do not mean that it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// In hexadecimal.
    pub serial: String,
    /// Distinguished names as text (RFC 4514).
    pub subject: String,
    pub issuer: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// SHA-256 of the whole certificate, and of its public key (SubjectPublicKeyInfo).
    pub fingerprint: Fingerprint,
    pub spki: Fingerprint,
    /// The public key in DER (SubjectPublicKeyInfo, RFC 5280, 4.1).
    pub public_key: Vec<u8>,
}

impl CertificateFacts {
    /// # Errors
    /// If the certificate cannot be parsed.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, X509Error> {
        let (rest, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| X509Error::BadCertificate(1))?;
        if !rest.is_empty() {
            return Err(X509Error::BadCertificate(1));
        }
        let public_key = parsed.public_key().raw;
        Ok(Self {
            serial: hex(parsed.raw_serial()),
            subject: printable(&parsed.subject().to_string()),
            issuer: printable(&parsed.issuer().to_string()),
            not_before: system_time(parsed.validity().not_before),
            not_after: system_time(parsed.validity().not_after),
            fingerprint: Fingerprint::of(certificate),
            spki: Fingerprint::of(public_key),
            public_key: public_key.to_vec(),
        })
    }
}

/// Facts of one CRL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlFacts {
    pub issuer: String,
    pub this_update: SystemTime,
    pub next_update: Option<SystemTime>,
    /// Certificates it revokes.
    pub revoked: usize,
}

impl CrlFacts {
    /// `None` if it cannot be parsed.
    #[must_use]
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, parsed) = CertificateRevocationList::from_der(der).ok()?;
        Some(Self {
            issuer: printable(&parsed.issuer().to_string()),
            this_update: system_time(parsed.last_update()),
            next_update: parsed.next_update().map(system_time),
            revoked: parsed.iter_revoked_certificates().count(),
        })
    }
}

/// When the next version of a CRL is due at the latest (`nextUpdate`; RFC 5280, 5.1.2.5), if it says so. What is
/// revoked is not read: it can be millions of entries.
#[must_use]
pub fn next_update(crl: &[u8]) -> Option<SystemTime> {
    let (_, list) = Any::from_der(crl).ok()?;
    let (_, to_be_signed) = Any::from_der(list.data).ok()?;
    let (rest, _version) = Option::<u32>::from_der(to_be_signed.data).ok()?;
    let (rest, _signature) = AlgorithmIdentifier::from_der(rest).ok()?;
    let (rest, _issuer) = X509Name::from_der(rest).ok()?;
    let (rest, _this_update) = ASN1Time::from_der(rest).ok()?;
    let (_, next_update) = ASN1Time::from_der(rest).ok()?;
    Some(system_time(next_update))
}

/// Escapes control characters: names may hold anything, and are shown on terminals.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Times before 1970 become 1970: nothing that is read here is older.
fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::testing::{Ca, crl};

    #[test]
    fn the_next_update_is_the_one_that_a_whole_crl_has() {
        let ca = Ca::new("example.org");
        // Before 2050 and after, which is written differently (RFC 5280, 5.1.2.6).
        for seconds in [1_900_000_000, 2_524_607_999, 2_524_608_000, 4_000_000_000] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let list = crl(&ca, &[1, 2, 3], time);
            assert_eq!(next_update(&list), Some(time));
            assert_eq!(CrlFacts::of(&list).unwrap().next_update, Some(time));
        }
    }

    #[test]
    fn what_is_no_crl_has_no_next_update() {
        let ca = Ca::new("example.org");
        let list = crl(&ca, &[], SystemTime::now());
        assert_eq!(next_update(&[]), None);
        assert_eq!(next_update(&ca.certificate), None);
        for length in 0..list.len() {
            assert_eq!(next_update(&list[..length]), None, "{length}");
        }
    }
}
