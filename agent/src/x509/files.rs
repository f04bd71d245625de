//! Files with certificates.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;

use super::{X509Error, certificates};
use crate::sys::files::{self, ReadError};

/// The content of a file with certificates.
#[derive(Clone, Debug)]
pub struct CertificateFile {
    pub certificates: Vec<CertificateDer<'static>>,
    /// The raw content, to detect changes.
    pub bytes: Vec<u8>,
}

/// Why a file with certificates or a key is invalid.
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
    /// If it cannot be read, or holds anything else than certificates and what may stand beside them.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = files::read(path, files::CREDENTIALS)
            .map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
        let certificates = certificates(&bytes)
            .map_err(|error| FileError::Malformed { path: path.to_owned(), error })?;
        Ok(Self { certificates, bytes })
    }
}
