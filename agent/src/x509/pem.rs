//! PEM (RFC 7468) and DER, as files hold them.

use rustls_pki_types::pem::{self, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

/// Certificates that one file may hold: far more than any bundle in use.
const MOST_CERTIFICATES: usize = 4096;
/// First byte of everything in DER that is read here: a SEQUENCE (X.690, 8.9).
const SEQUENCE: u8 = 0x30;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    #[error("no certificate in it")]
    NoCertificate,
    #[error("certificate {0} in it cannot be parsed")]
    BadCertificate(usize),
    #[error("more than {MOST_CERTIFICATES} certificates")]
    TooMany,
    #[error("no private key in it")]
    NoKey,
    #[error("more than one private key in it")]
    SeveralKeys,
    #[error("no CRL in it")]
    NoCrl,
    #[error("CRL {index} in it cannot be used: {reason}")]
    BadCrl { index: usize, reason: String },
    #[error("malformed PEM: {0}")]
    Pem(&'static str),
}

impl From<pem::Error> for X509Error {
    /// Not in the error's own words: they repeat what the file holds, which may be a key.
    fn from(error: pem::Error) -> Self {
        Self::Pem(match error {
            pem::Error::MissingSectionEnd { .. } => "a section does not end",
            pem::Error::IllegalSectionStart { .. } => "a section does not begin as it should",
            pem::Error::Base64Decode(_) => "a section is not base64",
            pem::Error::SectionTooLarge => "a section is too long",
            _ => "it cannot be read",
        })
    }
}

/// The certificates of a PEM file, in order. Other sections are passed over.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, X509Error> {
    let mut found = Vec::new();
    for section in CertificateDer::pem_slice_iter(text) {
        if found.len() == MOST_CERTIFICATES {
            return Err(X509Error::TooMany);
        }
        found.push(section?);
        check_certificate(&found, found.len())?;
    }
    if found.is_empty() { Err(X509Error::NoCertificate) } else { Ok(found) }
}

/// Certificates in DER, one directly after the other, as the SPIFFE APIs send them.
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

fn check_certificate(found: &[CertificateDer<'_>], index: usize) -> Result<(), X509Error> {
    let Some(last) = found.last() else {
        return Ok(());
    };
    match X509Certificate::from_der(last) {
        Ok(([], _)) => Ok(()),
        _ => Err(X509Error::BadCertificate(index)),
    }
}

/// The one private key of a PEM file. Wiped when it goes.
pub fn private_key(text: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, X509Error> {
    let mut key: Option<Zeroizing<PrivateKeyDer<'static>>> = None;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let (kind, mut der) = section?;
        let Some(found) = PrivateKeyDer::from_pem(kind, std::mem::take(&mut der)) else {
            der.zeroize();
            continue;
        };
        if key.replace(Zeroizing::new(found)).is_some() {
            return Err(X509Error::SeveralKeys);
        }
    }
    key.ok_or(X509Error::NoKey)
}

/// The CRLs of a file, in PEM or one in DER.
pub fn crls(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, X509Error> {
    if bytes.first() == Some(&SEQUENCE) {
        return Ok(vec![CertificateRevocationListDer::from(bytes.to_vec())]);
    }
    let found =
        CertificateRevocationListDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err(X509Error::NoCrl) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    fn made() -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(vec!["web".to_owned()]).unwrap().self_signed(&key).unwrap(), key)
    }

    #[test]
    fn certificates_and_the_key_are_found_among_other_sections() {
        let (certificate, key) = made();
        let text = format!(
            "# comment\n{}\n{}{}",
            certificate.pem(),
            key.serialize_pem(),
            certificate.pem()
        );
        assert_eq!(certificates(text.as_bytes()).unwrap(), vec![certificate.der().clone(); 2]);
        let found = private_key(text.as_bytes()).unwrap();
        assert_eq!(found.secret_der(), key.serialize_der());
    }

    #[test]
    fn what_is_missing_or_doubled_is_named() {
        let (certificate, key) = made();
        let pem = certificate.pem();
        assert_eq!(certificates(b"nothing"), Err(X509Error::NoCertificate));
        assert_eq!(private_key(pem.as_bytes()).unwrap_err(), X509Error::NoKey);
        let twice = key.serialize_pem().repeat(2);
        assert_eq!(private_key(twice.as_bytes()).unwrap_err(), X509Error::SeveralKeys);
        assert_eq!(crls(pem.as_bytes()), Err(X509Error::NoCrl));
        let cut = &pem[..pem.len() / 2];
        assert!(matches!(certificates(cut.as_bytes()), Err(X509Error::Pem(_))));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(nonsense.as_bytes()), Err(X509Error::BadCertificate(1)));
    }

    /// A key that has lost its line breaks is one long first line.
    #[test]
    fn errors_do_not_repeat_what_the_file_holds() {
        let key = made().1.serialize_pem().replace('\n', "");
        for text in [key.clone(), key.replace("KEY-----", "KEY----")] {
            let error = private_key(text.as_bytes()).unwrap_err();
            assert!(matches!(error, X509Error::Pem(_)), "{error}");
            let said = format!("{error} {error:?}");
            assert!(said.chars().filter(char::is_ascii_digit).count() < 4, "{said}");
        }
    }

    #[test]
    fn concatenated_der_is_taken_apart() {
        let (certificate, _) = made();
        let one = certificate.der();
        let both = [one.as_ref(), one.as_ref()].concat();
        assert_eq!(concatenated_certificates(&both).unwrap(), vec![one.clone(); 2]);
        assert_eq!(concatenated_certificates(&[]), Err(X509Error::NoCertificate));
        let cut = &both[..both.len() - 1];
        assert_eq!(concatenated_certificates(cut), Err(X509Error::BadCertificate(2)));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (certificates(&bytes), concatenated_certificates(&bytes), crls(&bytes));
            let _ = private_key(&bytes);
        }
    }
}
