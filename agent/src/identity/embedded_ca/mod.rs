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

use crate::sys::files::ReadError;
use crate::trust::BundleError;
use crate::x509::KeyPairError;

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
    Unusable { path: PathBuf, reason: String },
    #[error("has no spiffeId")]
    NoSpiffeId,
    #[error("no root is active")]
    NoActiveRoot,
    #[error("{} is not in use yet; a further root would be one too many", .0.display())]
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
