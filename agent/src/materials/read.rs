//! Reads materials from files. Each comes with a digest of its content, which tells whether it has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use super::system::{self, NoAuthorities};
use crate::desired::{CertificateSource, CrlFiles};
use crate::sys::files;
use crate::trust::{Anchors, CrlError, Revocation, reason};
use crate::x509::{
    self, CertificateFile, CrlFacts, FileError, Fingerprint, KeyPair, KeyPairError, KeyPairFiles,
};

/// Why a material is invalid.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    #[error(transparent)]
    File(#[from] FileError),
    /// One of the certificates cannot be an authority.
    #[error("{}: {}", path.display(), reason(.error))]
    NoAuthority { path: PathBuf, error: webpki::Error },
    #[error("{}: {error}", path.display())]
    Crl { path: PathBuf, error: CrlError },
    /// CRLs that are invalid together, though each file is valid.
    #[error(transparent)]
    Crls(#[from] CrlError),
    #[error(transparent)]
    KeyPair(#[from] KeyPairError),
    #[error("{} is not valid now", .0.display())]
    NotValidNow(PathBuf),
    #[error(transparent)]
    System(#[from] NoAuthorities),
}

/// The CRLs of one entry, and facts about them for people.
#[derive(Clone, Debug)]
pub struct CrlSet {
    pub revocation: Arc<Revocation>,
    pub facts: Vec<(PathBuf, CrlFacts)>,
}

type Read<T> = Result<(T, Fingerprint), MaterialError>;

/// Reads the authorities of a source.
///
/// # Errors
/// If the file cannot be read, or if a certificate in it cannot be an authority.
pub fn certificates(source: &CertificateSource) -> Read<Vec<CertificateDer<'static>>> {
    match source {
        CertificateSource::File(path) => certificates_of_file(path),
        CertificateSource::System => Ok(system::read()?),
    }
}

fn certificates_of_file(path: &Path) -> Read<Vec<CertificateDer<'static>>> {
    let CertificateFile { certificates, bytes } = CertificateFile::read(path)?;
    // Checked by webpki, which will use them.
    Anchors::new(&certificates)
        .map_err(|error| MaterialError::NoAuthority { path: path.to_owned(), error })?;
    Ok((certificates, Fingerprint::of(&bytes)))
}

/// Reads the CRLs of an entry.
///
/// # Errors
/// If a file cannot be read, or if a CRL in it cannot be used.
pub fn crls(wanted: &CrlFiles) -> Read<CrlSet> {
    let mut lists = Vec::new();
    let mut facts = Vec::new();
    let mut everything = Vec::new();
    for path in &wanted.files {
        let bytes = files::read(path, files::CRLS)
            .map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
        let found = x509::crls(&bytes)
            .map_err(|error| FileError::Malformed { path: path.to_owned(), error })?;
        // Each file by itself, so that the message names the file.
        Revocation::new(&found, wanted.unknown, wanted.expired)
            .map_err(|error| MaterialError::Crl { path: path.to_owned(), error })?;
        facts.extend(
            found.iter().filter_map(|list| Some((path.clone(), CrlFacts::of(list.as_ref())?))),
        );
        lists.extend(found);
        everything.extend(bytes);
    }
    let revocation = Revocation::new(&lists, wanted.unknown, wanted.expired)?;
    Ok((CrlSet { revocation: Arc::new(revocation), facts }, Fingerprint::of(&everything)))
}

/// Reads the certificate and key of a TLS context.
///
/// # Errors
/// If a file cannot be read, if the two do not match, or if the certificate is not valid now.
pub fn key_pair(files: &KeyPairFiles) -> Read<KeyPair> {
    let pair = KeyPair::read(files)?;
    let now = SystemTime::now();
    if now < pair.facts.not_before || pair.facts.not_after <= now {
        return Err(MaterialError::NotValidNow(files.certificate.clone()));
    }
    let chain: Vec<u8> = pair.key.cert.iter().flat_map(|der| der.to_vec()).collect();
    Ok((pair, Fingerprint::of(&chain)))
}
