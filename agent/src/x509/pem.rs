//! Certificates, keys and CRLs, as files hold them.
//!
//! All PEM goes through [`sections`]: as many entries as BEGIN lines, or the file is refused as a whole. A section that does
//! not belong in a file is refused as well. Only the sections of a key are skipped where certificates are read, and the
//! reverse: a chain and its key may be in one file.

use base64ct::{Base64, Encoding};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::sections::{PemError, Section, sections};

/// Certificates that one file may hold: far more than any bundle in use.
pub const MOST_CERTIFICATES: usize = 4096;
/// First byte of everything in DER that is read here: a SEQUENCE (X.690, 8.9).
const SEQUENCE: u8 = 0x30;
/// Header of a key that takes a passphrase, as older programs write it (RFC 1421, 4.6.1.1).
const ENCRYPTED: &[u8] = b"4,ENCRYPTED";

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    #[error("no certificate in it")]
    NoCertificate,
    #[error(
        "it is DER, where PEM is wanted; `openssl x509 -inform DER -in FILE` writes a certificate as PEM"
    )]
    Der,
    #[error("certificate {0} in it cannot be parsed")]
    BadCertificate(usize),
    #[error("more than {MOST_CERTIFICATES} certificates")]
    TooMany,
    #[error("no private key in it")]
    NoKey,
    #[error(
        "the private key in it is encrypted; `openssl pkey -in FILE` writes it without a passphrase"
    )]
    EncryptedKey,
    #[error("more than one private key in it")]
    SeveralKeys,
    #[error("no CRL in it")]
    NoCrl,
    #[error(
        "line {line} begins a section `{label}`, which has no place in a file of {wanted}{advice}"
    )]
    Misplaced { line: usize, label: String, wanted: &'static str, advice: &'static str },
    #[error("malformed PEM: {0}")]
    Pem(#[from] PemError),
}

/// What a section is, by its label (RFC 7468, 5 to 13, older names included).
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Certificate,
    Crl,
    Key(SectionKind),
    EncryptedKey,
    /// Parameters that programs write beside a key, and that are not needed any more.
    Parameters,
    Other,
}

impl Kind {
    fn of(section: &Section<'_>) -> Self {
        match section.label {
            "CERTIFICATE" | "X509 CERTIFICATE" | "X.509 CERTIFICATE" => Self::Certificate,
            "X509 CRL" | "CRL" => Self::Crl,
            "PRIVATE KEY" => Self::Key(SectionKind::PrivateKey),
            "RSA PRIVATE KEY" => Self::Key(SectionKind::RsaPrivateKey),
            "EC PRIVATE KEY" => Self::Key(SectionKind::EcPrivateKey),
            "ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
            "EC PARAMETERS" | "DH PARAMETERS" | "X9.42 DH PARAMETERS" => Self::Parameters,
            _ => Self::Other,
        }
    }
}

fn misplaced(section: &Section<'_>, wanted: &'static str) -> X509Error {
    let advice = match section.label {
        // It holds more than a certificate: for what OpenSSL is to trust it.
        "TRUSTED CERTIFICATE" => "; `openssl x509 -in FILE` writes it as CERTIFICATE",
        "OPENSSH PRIVATE KEY" => "; `ssh-keygen -p -m PKCS8 -f FILE` writes it as PRIVATE KEY",
        _ => "",
    };
    X509Error::Misplaced { line: section.line, label: section.label.to_owned(), wanted, advice }
}

/// The certificates of a PEM file, in order. A key may be beside them.
///
/// # Errors
/// If there is none, if one cannot be parsed, or if there is anything else in the file but a key.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, X509Error> {
    if text.first() == Some(&SEQUENCE) && text.get(1).is_some_and(|byte| !byte.is_ascii_graphic()) {
        return Err(X509Error::Der);
    }
    let mut found = Vec::new();
    for section in sections(text)? {
        match Kind::of(&section) {
            Kind::Certificate => {}
            Kind::Key(_) | Kind::EncryptedKey | Kind::Parameters => continue,
            Kind::Crl | Kind::Other => return Err(misplaced(&section, "certificates")),
        }
        if found.len() == MOST_CERTIFICATES {
            return Err(X509Error::TooMany);
        }
        let certificate = CertificateDer::from(decode(&section)?);
        match X509Certificate::from_der(&certificate) {
            Ok(([], _)) => {}
            _ => return Err(X509Error::BadCertificate(found.len() + 1)),
        }
        found.push(certificate);
    }
    if found.is_empty() { Err(X509Error::NoCertificate) } else { Ok(found) }
}

/// The certificates of a PEM file that can be parsed; the others are passed over. Only for the many that a distribution
/// brings along.
///
/// # Errors
/// If a section of the file is damaged.
pub fn readable_certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, X509Error> {
    let found =
        sections(text)?.into_iter().filter(|section| Kind::of(section) == Kind::Certificate);
    let readable = |section: Section<'_>| {
        let certificate = CertificateDer::from(decode(&section).ok()?);
        let is_whole = matches!(X509Certificate::from_der(&certificate), Ok(([], _)));
        is_whole.then_some(certificate)
    };
    Ok(found.filter_map(readable).take(MOST_CERTIFICATES).collect())
}

/// Certificates in DER, one directly after the other, as the SPIFFE APIs send them.
///
/// # Errors
/// If there is none, if one cannot be parsed, or if there are too many.
pub fn concatenated_certificates(der: &[u8]) -> Result<Vec<CertificateDer<'static>>, X509Error> {
    let mut found = Vec::new();
    let mut rest = der;
    while !rest.is_empty() {
        if found.len() == MOST_CERTIFICATES {
            return Err(X509Error::TooMany);
        }
        let (after, _) = X509Certificate::from_der(rest)
            .map_err(|_| X509Error::BadCertificate(found.len() + 1))?;
        let length = rest.len() - after.len();
        found.push(CertificateDer::from(rest[..length].to_vec()));
        rest = after;
    }
    if found.is_empty() { Err(X509Error::NoCertificate) } else { Ok(found) }
}

/// The one private key of a PEM file; its certificates may be beside it. Wiped when it goes, and so is everything on the
/// way: that is why no parser of others' is used.
///
/// # Errors
/// If there is none, if there are several, or if the key is encrypted.
pub fn private_key(text: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, X509Error> {
    let mut key: Option<Zeroizing<PrivateKeyDer<'static>>> = None;
    for section in sections(text)? {
        let kind = match Kind::of(&section) {
            Kind::Key(kind) => kind,
            Kind::EncryptedKey => return Err(X509Error::EncryptedKey),
            Kind::Certificate | Kind::Parameters => continue,
            Kind::Crl | Kind::Other => return Err(misplaced(&section, "private keys")),
        };
        if section.body.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) {
            return Err(X509Error::EncryptedKey);
        }
        let found = PrivateKeyDer::from_pem(kind, decode(&section)?).ok_or(X509Error::NoKey)?;
        if key.replace(Zeroizing::new(found)).is_some() {
            return Err(X509Error::SeveralKeys);
        }
    }
    key.ok_or(X509Error::NoKey)
}

/// The CRLs of a file, in PEM or one in DER.
///
/// # Errors
/// If there is none, or if there is anything else in the file.
pub fn crls(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, X509Error> {
    if bytes.first() == Some(&SEQUENCE) {
        return Ok(vec![CertificateRevocationListDer::from(bytes.to_vec())]);
    }
    let mut found = Vec::new();
    for section in sections(bytes)? {
        if Kind::of(&section) != Kind::Crl {
            return Err(misplaced(&section, "CRLs"));
        }
        found.push(CertificateRevocationListDer::from(decode(&section)?));
    }
    if found.is_empty() { Err(X509Error::NoCrl) } else { Ok(found) }
}

/// In constant time, as for a secret. The buffers are made once, so that none is left behind as it grows.
fn decode(section: &Section<'_>) -> Result<Vec<u8>, X509Error> {
    let malformed = PemError::NoBase64(section.line);
    let mut text = Zeroizing::new(Vec::with_capacity(section.body.len()));
    text.extend(section.body.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; text.len() / 4 * 3]);
    let length = Base64::decode(&*text, &mut der).map_err(|_| malformed)?.len();
    if length == 0 {
        return Err(malformed.into());
    }
    der.truncate(length);
    Ok(std::mem::take(&mut *der))
}

#[cfg(test)]
mod tests;
