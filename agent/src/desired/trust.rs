//! By what peers' certificates are meant to be judged: where authorities, CRLs and pinned certificates are.

use std::fmt;
use std::path::PathBuf;

use super::Origin;
use crate::spiffe::TrustDomain;
use crate::trust::{OnDoubt, Pin};

/// A further trust domain, or more about one.
#[derive(Clone, Debug)]
pub struct TrustDomainEntry {
    pub origin: Origin,
    pub name: TrustDomain,
    /// Where its authorities are; `None` leaves them to the workloads' sources.
    pub bundle: Option<PathBuf>,
    pub crl: Option<CrlFiles>,
}

/// Where certificates are by which others are judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateSource {
    /// In a file.
    File(PathBuf),
    /// Where the system keeps the authorities that it trusts.
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

/// CRLs, and what becomes of certificates that they say nothing about.
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

/// A pin, or a file of certificates that are pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinSource {
    Digest(Pin),
    File(PathBuf),
}
