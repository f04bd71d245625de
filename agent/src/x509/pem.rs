//! PEM (RFC 7468) and DER, as files hold them.

use base64ct::{Base64, Encoding};
use rustls_pki_types::pem::{self, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// Certificates that one file may hold: far more than any bundle in use.
const MOST_CERTIFICATES: usize = 4096;
/// First byte of everything in DER that is read here: a SEQUENCE (X.690, 8.9).
const SEQUENCE: u8 = 0x30;

/// How the lines around a section begin, and end (RFC 7468, 3).
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

const NO_BEGINNING: &str = "a section does not begin as it should";
const NO_END: &str = "a section does not end";
const NO_BASE64: &str = "a section is not base64";

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
            pem::Error::MissingSectionEnd { .. } => NO_END,
            pem::Error::IllegalSectionStart { .. } => NO_BEGINNING,
            pem::Error::Base64Decode(_) => NO_BASE64,
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

/// The one private key of a PEM file. Wiped when it goes, and so is everything on the way: that is why it is not left
/// to a parser that is not only for keys.
pub fn private_key(text: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, X509Error> {
    let mut key: Option<Zeroizing<PrivateKeyDer<'static>>> = None;
    let mut lines = text.split(|byte| matches!(byte, b'\n' | b'\r'));
    while let Some(line) = lines.next() {
        if !line.starts_with(BEGIN) {
            continue;
        }
        let label = label(line, BEGIN).ok_or(X509Error::Pem(NO_BEGINNING))?;
        let mut body = Vec::new();
        loop {
            let line = lines.next().ok_or(X509Error::Pem(NO_END))?;
            if self::label(line, END) == Some(label) {
                break;
            }
            body.push(line);
        }
        let kind = match label {
            b"PRIVATE KEY" => SectionKind::PrivateKey,
            b"RSA PRIVATE KEY" => SectionKind::RsaPrivateKey,
            b"EC PRIVATE KEY" => SectionKind::EcPrivateKey,
            _ => continue,
        };
        let found = PrivateKeyDer::from_pem(kind, decode(&body)?).ok_or(X509Error::NoKey)?;
        if key.replace(Zeroizing::new(found)).is_some() {
            return Err(X509Error::SeveralKeys);
        }
    }
    key.ok_or(X509Error::NoKey)
}

/// What a section's first or last line says that it is.
fn label<'l>(line: &'l [u8], boundary: &[u8]) -> Option<&'l [u8]> {
    let label = line.strip_prefix(boundary)?.trim_ascii_end().strip_suffix(DASHES)?;
    // A file without line breaks is one such line, with everything in it.
    (!label.windows(DASHES.len()).any(|part| part == DASHES)).then_some(label)
}

/// In constant time, as for a secret. The buffers are made once, so that none is left behind as it grows.
fn decode(lines: &[&[u8]]) -> Result<Vec<u8>, X509Error> {
    let mut text = Zeroizing::new(Vec::with_capacity(lines.iter().map(|line| line.len()).sum()));
    text.extend(lines.iter().flat_map(|line| *line).filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; text.len() / 4 * 3]);
    let length = Base64::decode(&*text, &mut der).map_err(|_| X509Error::Pem(NO_BASE64))?.len();
    der.truncate(length);
    Ok(std::mem::take(&mut *der))
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

    #[test]
    fn keys_are_found_in_every_shape_that_programs_give_them() {
        let key = made().1;
        let (pem, der) = (key.serialize_pem(), key.serialize_der());
        let joined: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        for text in [
            pem.replace('\n', "\r\n"),
            pem.replace('\n', " \n\n"),
            pem.trim_end().to_owned(),
            format!("-----BEGIN PRIVATE KEY-----\n{joined}\n-----END PRIVATE KEY-----"),
            format!("-----BEGIN X9-42 OTHER-----\n???\n-----END X9-42 OTHER-----\n{pem}"),
        ] {
            assert_eq!(private_key(text.as_bytes()).unwrap().secret_der(), der, "{text}");
        }
        for (label, is_it) in [
            ("RSA PRIVATE KEY", matches!(shape("RSA PRIVATE KEY", &pem), PrivateKeyDer::Pkcs1(_))),
            ("EC PRIVATE KEY", matches!(shape("EC PRIVATE KEY", &pem), PrivateKeyDer::Sec1(_))),
        ] {
            assert!(is_it, "{label}");
        }
        for text in [
            pem.replace("-----END PRIVATE", "-----END OTHER"),
            pem.replacen('\n', "\nProc-Type: 4,ENCRYPTED\n", 1),
            pem.replace("KEY-----\n", "KEY----\n"),
        ] {
            assert!(matches!(private_key(text.as_bytes()), Err(X509Error::Pem(_))), "{text}");
        }
    }

    fn shape(label: &str, pem: &str) -> PrivateKeyDer<'static> {
        private_key(pem.replace("PRIVATE KEY", label).as_bytes()).unwrap().clone_key()
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
