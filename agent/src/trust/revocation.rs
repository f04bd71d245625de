//! CRLs (RFC 5280, 5) and what to do where they do not say.

use std::fmt;

use rustls_pki_types::CertificateRevocationListDer;
use webpki::{
    CertRevocationList, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::reason;
use super::validity::Validity;
use crate::x509::{Fingerprint, X509Error, next_update};

/// What to do where the CRLs give no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnDoubt {
    #[default]
    Deny,
    Allow,
}

/// The CRLs of one trust domain. Every certificate of a chain is looked up.
pub struct Revocation {
    lists: Vec<CertRevocationList<'static>>,
    /// What of certificates whose issuer has no CRL here?
    unknown: OnDoubt,
    /// What if a CRL is past its `nextUpdate`?
    expired: OnDoubt,
    fingerprint: Fingerprint,
    validity: Validity,
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
    ) -> Result<Self, X509Error> {
        let parse = |(index, list): (usize, &CertificateRevocationListDer<'_>)| {
            OwnedCertRevocationList::from_der(list)
                .map(CertRevocationList::Owned)
                .map_err(|error| X509Error::BadCrl { index: index + 1, reason: reason(&error) })
        };
        let options = [unknown as u8, expired as u8];
        let content = lists.iter().map(AsRef::as_ref);
        Ok(Self {
            lists: lists.iter().enumerate().map(parse).collect::<Result<_, _>>()?,
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

    /// SHA-256 of the lists, in order, and of what to do where they do not say.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Until when what the lists say stays what they say.
    pub(super) fn validity(&self) -> Validity {
        self.validity
    }

    /// True if no list is there and certificates of unknown status are refused: then nobody passes.
    #[must_use]
    pub fn denies_everybody(&self) -> bool {
        self.lists.is_empty() && self.unknown == OnDoubt::Deny
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

/// Until a list's `nextUpdate` (RFC 5280, 5.1.2.5). Of one that does not say, nothing may be remembered.
fn validity(list: &[u8]) -> Validity {
    next_update(list).map_or(Validity::NEVER, Validity::before)
}
