//! Certificates of somebody who knows nothing of SPIFFE. They are in a directory of their own, because
//! configurations name them before there is a world.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::openssl;
use crate::ca::{Ca, PemFiles, San};

/// A private authority, and whatever it issues.
pub struct Pki {
    dir: TempDir,
    ca: Ca,
    issued: AtomicU32,
}

impl Pki {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for certificates");
        let ca = Ca::private();
        ca.write_certificate(&dir.path().join("ca.crt"));
        Self { dir, ca, issued: AtomicU32::new(0) }
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// A certificate of the authority for a DNS name.
    pub fn issue(&self, name: &str) -> PemFiles {
        self.ca.issue_named(&[San::dns(name)]).write(&self.next_dir())
    }

    /// A self-signed certificate as `openssl req -x509` makes it.
    pub fn self_signed(&self, name: &str) -> PemFiles {
        openssl::self_signed(&self.next_dir(), name)
    }

    fn next_dir(&self) -> PathBuf {
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        self.dir.path().join(Path::new(&number.to_string()))
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}
