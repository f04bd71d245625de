//! The roots of an embedded CA, and their states.
//!
//! A root is trusted as soon as its certificate is in the [directory](super::directory). It becomes active, which means that
//! SVIDs are issued from it, once it has been valid for [`CLOCK_SKEW`](crate::identity::issuing::CLOCK_SKEW). So a root whose
//! validity begins tomorrow is trusted for a day before it is used, on every node that has the directory, without any
//! coordination. A root without its key is only trusted.

use std::path::Path;
use std::time::SystemTime;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls_pki_types::CertificateDer;

use super::directory::{
    Root, certificate_path, file_name, numbers, read_certificate, read_root, unusable,
};
use super::{CaError, UnusableRoot};
use crate::identity::issuing::uri_names;
use crate::spiffe::TrustDomain;
use crate::x509::CertificateFacts;

/// All roots of a directory, by number.
pub struct Roots {
    pub(super) roots: Vec<Root>,
}

/// The state of a root at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootState {
    /// Trusted, and not yet issued from.
    Next,
    /// Trusted and issued from.
    Active,
    /// Still trusted.
    Old,
    Expired,
}

impl RootState {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Old => "old",
            Self::Expired => "expired",
        }
    }
}

/// A root, for `sheath ca show`.
#[derive(Clone, Debug)]
pub struct RootStatus {
    pub file: String,
    pub state: RootState,
    /// When issuing from it begins or has begun.
    pub active_from: SystemTime,
    pub facts: CertificateFacts,
    pub has_key: bool,
}

impl Roots {
    /// Reads a directory.
    ///
    /// # Errors
    /// If there is no root, or if any of them is of another trust domain or has a key that does not match.
    pub fn read(directory: &Path, trust_domain: &TrustDomain) -> Result<Self, CaError> {
        let numbers = numbers(directory)?;
        let roots = numbers
            .into_iter()
            .map(|number| read_root(directory, number, trust_domain))
            .collect::<Result<_, _>>()?;
        Ok(Self { roots })
    }

    /// The trust domain of the CA in a directory, by its first root.
    ///
    /// # Errors
    /// If there is no CA, or if its first root says nothing of a trust domain.
    pub fn trust_domain(directory: &Path) -> Result<TrustDomain, CaError> {
        let first = numbers(directory)?.into_iter().next().unwrap_or(1);
        let path = certificate_path(directory, first);
        let certificate = read_certificate(&path)?;
        uri_names(&certificate)
            .iter()
            .find_map(|uri| uri.strip_prefix("spiffe://"))
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| unusable(&path, UnusableRoot::NoTrustDomain))
    }

    /// The root to issue from: the youngest one that is due and has its key here.
    #[must_use]
    pub fn active(&self, now: SystemTime) -> Option<&Root> {
        self.roots
            .iter()
            .filter(|root| root.key.is_some() && root.active_from() <= now && !root.is_expired(now))
            .max_by_key(|root| root.age())
    }

    /// Certificates of all roots that are trusted.
    #[must_use]
    pub fn trusted(&self, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let valid = self.roots.iter().filter(|root| !root.is_expired(now));
        valid.map(|root| root.certificate.clone()).collect()
    }

    /// The same as a PEM file.
    #[must_use]
    pub fn bundle_pem(&self, now: SystemTime) -> String {
        let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
        let pem = |der: CertificateDer<'static>| Pem::new("CERTIFICATE", der.to_vec());
        self.trusted(now).into_iter().map(|der| pem::encode_config(&pem(der), config)).collect()
    }

    #[must_use]
    pub fn status(&self, now: SystemTime) -> Vec<RootStatus> {
        let active = self.active(now).map(|root| root.number);
        let state = |root: &Root| match () {
            () if root.is_expired(now) => RootState::Expired,
            () if Some(root.number) == active => RootState::Active,
            () if now < root.active_from() => RootState::Next,
            () => RootState::Old,
        };
        self.roots
            .iter()
            .map(|root| RootStatus {
                file: file_name(root.number, "crt"),
                state: state(root),
                active_from: root.active_from(),
                facts: root.facts.clone(),
                has_key: root.key.is_some(),
            })
            .collect()
    }
}
