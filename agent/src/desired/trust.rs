//! What peers' certificates are verified by: authorities, CRLs and pins.

use std::fmt;
use std::path::PathBuf;

use super::Origin;
use crate::spiffe::TrustDomain;
use crate::trust::{OnDoubt, Pin};

/// A further trust domain, or additions to one that a source brings.
#[derive(Clone, Debug)]
pub struct TrustDomainEntry {
    pub origin: Origin,
    pub name: TrustDomain,
    /// File with its authorities; `None` if the sources bring them.
    pub bundle: Option<PathBuf>,
    pub crl: Option<CrlFiles>,
}

/// Where the certificates of authorities are read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateSource {
    /// A file.
    File(PathBuf),
    /// The authorities that the system trusts.
    System,
}

impl fmt::Display for CertificateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::System => f.write_str("the system's authorities"),
        }
    }
}

/// CRLs, and how to treat certificates that they do not cover.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CrlFiles {
    pub files: Vec<PathBuf>,
    pub unknown: OnDoubt,
    pub expired: OnDoubt,
}

impl fmt::Display for CrlFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<_> = self.files.iter().map(|file| file.display().to_string()).collect();
        f.write_str(&files.join(", "))
    }
}

/// A pin, or a file with pinned certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinSource {
    Digest(Pin),
    File(PathBuf),
}
