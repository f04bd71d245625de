//! By what peers' certificates are meant to be judged: where authorities, CRLs and pinned certificates are.

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

/// Where certificates are that vouch for others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Authorities {
    /// In a file.
    File(PathBuf),
    /// Where the system keeps those that it trusts.
    System,
}

/// CRLs, and what becomes of certificates that they say nothing about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CrlFiles {
    pub files: Vec<PathBuf>,
    pub unknown: OnDoubt,
    pub expired: OnDoubt,
}

/// A pin, or a file of certificates that are pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinSource {
    Digest(Pin),
    File(PathBuf),
}
