//! CRLs (RFC 5280, 5), and what to do if they give no answer.

use std::fmt;

use rustls_pki_types::{CertificateRevocationListDer, UnixTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use webpki::{
    CertRevocationList, Error, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::prelude::X509Name;

use super::reason;
use super::validity::Validity;
use crate::x509::{Fingerprint, next_update};

/// What to do if the CRLs give no answer.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
#[serde(rename_all = "lowercase")]
pub enum OnDoubt {
    #[default]
    Deny,
    Allow,
}

/// The CRLs of one trust domain. Every certificate of a chain is looked up.
pub struct Revocation {
    lists: Vec<CertRevocationList<'static>>,
    /// The lists in DER.
    raw: Vec<Box<[u8]>>,
    /// For certificates whose issuer has no CRL here.
    unknown: OnDoubt,
    /// For CRLs past their `nextUpdate`.
    expired: OnDoubt,
    fingerprint: Fingerprint,
    validity: Validity,
}

/// Why CRLs cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CRL {number} in it cannot be used: {}", reason(.error))]
pub struct CrlError {
    /// Which of them, counted from one.
    pub number: usize,
    pub error: Error,
}

impl fmt::Debug for Revocation {
    /// Lists can be long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocation")
            .field("lists", &self.lists.len())
            .field("unknown", &self.unknown)
            .field("expired", &self.expired)
            .finish()
    }
}

impl Revocation {
    /// Without any list every certificate's status is unknown.
    ///
    /// # Errors
    /// If one of the lists cannot be used; then none is.
    pub fn new(
        lists: &[CertificateRevocationListDer<'_>],
        unknown: OnDoubt,
        expired: OnDoubt,
    ) -> Result<Self, CrlError> {
        let parse = |(index, list): (usize, &CertificateRevocationListDer<'_>)| {
            OwnedCertRevocationList::from_der(list)
                .map(CertRevocationList::Owned)
                .map_err(|error| CrlError { number: index + 1, error })
        };
        let options = [unknown as u8, expired as u8];
        let content = lists.iter().map(AsRef::as_ref);
        Ok(Self {
            lists: lists.iter().enumerate().map(parse).collect::<Result<_, _>>()?,
            raw: content.clone().map(Box::from).collect(),
            unknown,
            expired,
            fingerprint: Fingerprint::of_sequence(
                std::iter::once(&options[..]).chain(content.clone()),
            ),
            validity: match expired {
                OnDoubt::Allow => Validity::ALWAYS,
                OnDoubt::Deny => content.map(validity).fold(Validity::ALWAYS, Validity::and),
            },
        })
    }

    /// SHA-256 of the lists, in order, and of what to do if they give no answer.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// When the lists are current.
    pub(super) fn validity(&self) -> Validity {
        self.validity
    }

    /// True if no list is there and certificates of unknown status are refused: then nobody passes.
    #[must_use]
    pub fn denies_everybody(&self) -> bool {
        self.lists.is_empty() && self.unknown == OnDoubt::Deny
    }

    /// True if one of the lists names this issuer.
    pub(super) fn has_list_of(&self, issuer: &X509Name<'_>) -> bool {
        self.lists.iter().any(|list| is_of(list, issuer))
    }

    /// Looks a certificate up in the lists of its issuer, in the same way as webpki.
    ///
    /// # Errors
    /// If it is revoked, if a list of its issuer is invalid or overdue, or if no list tells and that means to deny.
    pub(super) fn look_up(
        &self,
        serial: &[u8],
        issuer: &X509Name<'_>,
        now: UnixTime,
        is_signed: impl Fn(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut is_known = false;
        for (list, raw) in self.lists.iter().zip(&self.raw) {
            if !is_of(list, issuer) {
                continue;
            }
            is_signed(raw).map_err(|_| Error::InvalidCrlSignatureForPublicKey)?;
            let validity = validity(raw);
            if self.expired == OnDoubt::Deny && !validity.contains(now) {
                return Err(Error::CrlExpired { time: now, next_update: validity.end() });
            }
            if list.find_serial(serial)?.is_some() {
                return Err(Error::CertRevoked);
            }
            // A CRL for a part of the certificates (RFC 5280, 5.2.5) may not cover this one.
            is_known |= list.issuing_distribution_point().is_none();
        }
        if is_known || self.unknown == OnDoubt::Allow {
            return Ok(());
        }
        Err(Error::UnknownRevocationStatus)
    }

    /// Runs `verify` with these CRLs, in the form webpki takes them.
    pub(super) fn with_options<R>(
        &self,
        verify: impl FnOnce(Option<RevocationOptions<'_>>) -> R,
    ) -> R {
        let lists: Vec<_> = self.lists.iter().collect();
        let options = RevocationOptionsBuilder::new(&lists).ok().map(|builder| {
            builder
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(match self.unknown {
                    OnDoubt::Deny => UnknownStatusPolicy::Deny,
                    OnDoubt::Allow => UnknownStatusPolicy::Allow,
                })
                .with_expiration_policy(match self.expired {
                    OnDoubt::Deny => ExpirationPolicy::Enforce,
                    OnDoubt::Allow => ExpirationPolicy::Ignore,
                })
                .build()
        });
        verify(options)
    }
}

/// webpki has names without the tag and length of their DER.
fn is_of(list: &CertRevocationList<'_>, issuer: &X509Name<'_>) -> bool {
    Any::from_der(issuer.as_raw()).is_ok_and(|(_, name)| name.data == list.issuer())
}

/// Until a list's `nextUpdate` (RFC 5280, 5.1.2.5). Of one that does not say, nothing may be remembered.
fn validity(list: &[u8]) -> Validity {
    next_update(list).map_or(Validity::NEVER, Validity::before)
}
