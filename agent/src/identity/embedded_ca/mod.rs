//! The embedded CA: keys and certificates in a directory, from which every agent that has them issues the
//! SVIDs of its own workloads. For trying Sheath out and for installations with one operator.
//!
//! A root is replaced by adding the next one ([`roots`]): it is trusted at once and issued from later.

mod directory;
mod issue;
mod make;
mod roots;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use super::issuing::UnfitKey;
use crate::spiffe::TrustDomain;
use crate::sys::files::ReadError;
use crate::trust::BundleError;
use crate::x509::{KeyPairError, X509Error};

pub use issue::EmbeddedCa;
pub use roots::{RootState, RootStatus, Roots};
pub use source::CaSettings;

/// What can go wrong with the embedded CA.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot read {}: {error}; `sheath ca init` makes a CA", path.display())]
    Unreadable { path: PathBuf, error: ReadError },
    #[error("cannot write {}: {error}", path.display())]
    Unwritable { path: PathBuf, error: std::io::Error },
    #[error("{} exists; a CA is never overwritten", .0.display())]
    Exists(PathBuf),
    #[error("{}: {reason}", path.display())]
    Unusable { path: PathBuf, reason: UnusableRoot },
    #[error("has no spiffeId")]
    NoSpiffeId,
    #[error("no root is active")]
    NoActiveRoot,
    #[error("{} is not in use yet; wait until it is before you make another root", .0.display())]
    NextNotInUse(PathBuf),
    #[error(
        "certificates of earlier roots may still be in use; wait {}, or say --force",
        humantime::format_duration(*wait)
    )]
    OldInUse { wait: Duration },
    #[error(
        "cannot issue a certificate; are the CA's certificate and key those that `sheath ca` made?"
    )]
    Issue(#[from] rcgen::Error),
    #[error("cannot use an issued key: {}", crate::wire::words::handshake(.0))]
    Key(#[from] rustls::Error),
    #[error(transparent)]
    Pair(#[from] KeyPairError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Why a file of the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableRoot {
    #[error(transparent)]
    Malformed(#[from] X509Error),
    #[error("more than one certificate, where one root is wanted")]
    SeveralCertificates,
    #[error("the certificate is not of the trust domain {0}")]
    OtherDomain(TrustDomain),
    #[error("of no trust domain")]
    NoTrustDomain,
    /// Has the mode of the key's file.
    #[error("others than its owner may use it (mode {0:04o}); `chmod 600` it")]
    OpenKey(u32),
    #[error(transparent)]
    Key(#[from] UnfitKey),
    #[error("there is no root that is valid now and has its key beside it")]
    NoneActive,
}
