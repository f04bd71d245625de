//! The directory of an embedded CA. The first root is `ca.crt` with `ca.key`, later ones are `ca-2.crt`, `ca-3.crt` and so on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{CaError, UnusableRoot};
use crate::identity::issuing::{self, CLOCK_SKEW};
use crate::spiffe::TrustDomain;
use crate::sys::files::{self, ReadError};
use crate::x509::{self, CertificateFacts};

/// One root.
pub struct Root {
    /// 1 for `ca.crt`, and so on.
    pub number: u32,
    pub certificate: CertificateDer<'static>,
    pub facts: CertificateFacts,
    /// `None` where the root is only trusted.
    pub key: Option<Zeroizing<KeyPair>>,
}

impl Root {
    pub fn active_from(&self) -> SystemTime {
        self.facts.not_before + CLOCK_SKEW
    }

    /// Orders roots by age. Times in certificates are whole seconds, so the number has to help.
    pub fn age(&self) -> (SystemTime, u32) {
        (self.active_from(), self.number)
    }

    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.facts.not_after <= now
    }
}

pub fn file_name(number: u32, extension: &str) -> String {
    match number {
        1 => format!("ca.{extension}"),
        _ => format!("ca-{number}.{extension}"),
    }
}

pub fn certificate_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(file_name(number, "crt"))
}

pub fn key_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(file_name(number, "key"))
}

/// Numbers of the roots in a directory, in order.
///
/// # Errors
/// If there is none.
pub fn numbers(directory: &Path) -> Result<Vec<u32>, CaError> {
    let unreadable = |error: ReadError| unreadable(&directory.join("ca.crt"), error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unreadable(error.into()))? {
        let name = entry.map_err(|error| unreadable(error.into()))?.file_name();
        let number = name.to_str().and_then(|name| {
            let stem = name.strip_suffix(".crt")?;
            if stem == "ca" {
                return Some(1);
            }
            let number = stem.strip_prefix("ca-")?.parse().ok()?;
            // Not `ca-02.crt`: the name made from its number would be another one.
            (number > 1 && file_name(number, "crt") == name).then_some(number)
        });
        numbers.extend(number);
    }
    if numbers.is_empty() {
        return Err(unreadable(ReadError::Missing));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// # Errors
/// If it is of another trust domain, if the key does not match, or if others than the owner may access the key.
pub fn read_root(
    directory: &Path,
    number: u32,
    trust_domain: &TrustDomain,
) -> Result<Root, CaError> {
    let path = certificate_path(directory, number);
    let certificate = read_certificate(&path)?;
    let facts = CertificateFacts::of(&certificate).map_err(|error| unusable(&path, error))?;
    if !issuing::uri_names(&certificate).contains(&trust_domain.id()) {
        return Err(unusable(&path, UnusableRoot::OtherDomain(trust_domain.clone())));
    }
    let key_path = key_path(directory, number);
    let read_key = || -> Result<_, ReadError> {
        let file = files::open(&key_path)?;
        let mode = file.mode();
        Ok((Zeroizing::new(file.read(files::CREDENTIALS)?), mode))
    };
    let key = match read_key() {
        Ok((pem, mode)) => {
            // Whoever reads the key can issue any identity.
            if mode & 0o066 != 0 {
                return Err(unusable(&key_path, UnusableRoot::OpenKey(mode)));
            }
            let key = issuing::key(&pem, &facts).map_err(|error| unusable(&key_path, error))?;
            Some(key)
        }
        // Without its key, a root is trusted and not issued from.
        Err(ReadError::Missing) => None,
        Err(error) => return Err(unreadable(&key_path, error)),
    };
    Ok(Root { number, certificate, facts, key })
}

/// # Errors
/// If there is not exactly one certificate in the file.
pub fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, CaError> {
    let pem = files::read(path, files::CREDENTIALS).map_err(|error| unreadable(path, error))?;
    let mut found = x509::certificates(&pem).map_err(|error| unusable(path, error))?;
    match (found.pop(), found.len()) {
        (Some(certificate), 0) => Ok(certificate),
        _ => Err(unusable(path, UnusableRoot::SeveralCertificates)),
    }
}

pub fn unusable(path: &Path, reason: impl Into<UnusableRoot>) -> CaError {
    CaError::Unusable { path: path.to_owned(), reason: reason.into() }
}

fn unreadable(path: &Path, error: ReadError) -> CaError {
    CaError::Unreadable { path: path.to_owned(), error }
}
