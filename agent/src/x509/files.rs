//! Certificates in files, and what is said where they cannot be had from there.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;

use super::{X509Error, certificates};
use crate::sys::files::{self, ReadError};

/// What a file of certificates holds.
#[derive(Clone, Debug)]
pub struct CertificateFile {
    pub certificates: Vec<CertificateDer<'static>>,
    /// The file as it is, to tell whether it has changed.
    pub bytes: Vec<u8>,
}

/// Why a file of certificates, or of a key, is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: ReadError },
    #[error("{}: {error}", path.display())]
    Malformed { path: PathBuf, error: X509Error },
}

impl FileError {
    /// True if there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Unreadable { error: ReadError::Missing, .. })
    }
}

impl CertificateFile {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// If it cannot be read, or if there is anything in it that is no certificate or has no place beside one.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = files::read(path, files::CREDENTIALS)
            .map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
        let certificates = certificates(&bytes)
            .map_err(|error| FileError::Malformed { path: path.to_owned(), error })?;
        Ok(Self { certificates, bytes })
    }
}
