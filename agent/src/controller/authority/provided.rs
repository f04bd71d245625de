//! A CA that somebody else makes, in a Secret as cert-manager writes it: `tls.crt`, `tls.key` and `ca.crt`.
//!
//! It signs the controller's own intermediate, and nothing else. What is not good for that is refused with the reason; what was good
//! before stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::ByteString;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::state::{Above, Authority, Issuer};
use crate::identity::issuing::{self, UnfitKey};
use crate::x509::{self, CertificateFacts, X509Error};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const ROOTS: &str = "ca.crt";
/// Certificates between the controller's intermediate and a root. Agents take two more than a leaf and that.
const MOST_BETWEEN: usize = 2;
/// Roots at a time.
const MOST_ROOTS: usize = 4;

/// Why a Secret has no CA that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ProvidedError {
    #[error("it has no `{0}`")]
    Lacks(&'static str),
    #[error("its `{entry}`: {error}")]
    Certificate { entry: &'static str, error: X509Error },
    #[error("its `{KEY}`: {0}")]
    Key(#[from] UnfitKey),
    #[error(
        "`{0}` is no authority (CA:TRUE is missing); with cert-manager, its Certificate needs `isCA: true`"
    )]
    NotAnAuthority(String),
    #[error("`{0}` may not sign certificates: its key usage has no keyCertSign")]
    KeyUsage(String),
    #[error(
        "`{subject}` allows {allowed} authorities below it (pathlen), and {needed} are needed: the controller signs with an intermediate of its own"
    )]
    PathLength { subject: String, allowed: u32, needed: u32 },
    #[error("`{0}` has ended")]
    Ended(String),
    #[error("`{0}` is not valid yet")]
    NotYet(String),
    #[error(
        "it has no root: neither `{ROOTS}`, nor a certificate in `{CERTIFICATE}` that has signed itself"
    )]
    NoRoot,
    #[error("it has more than {MOST_BETWEEN} certificates below its root; agents take no more")]
    TooLong,
    #[error("`{ROOTS}` has more than {MOST_ROOTS} certificates")]
    TooManyRoots,
}

/// What a Secret has. That it proves what it should has to be tried yet.
///
/// # Errors
/// If it is no CA, or of no use for what it is for.
pub fn read(data: &BTreeMap<String, ByteString>, now: SystemTime) -> Result<Issuer, ProvidedError> {
    let own = certificates(data, CERTIFICATE)?.ok_or(ProvidedError::Lacks(CERTIFICATE))?;
    let key = data.get(KEY).ok_or(ProvidedError::Lacks(KEY))?;
    let of_own = facts(&own[0], CERTIFICATE)?;
    let key = issuing::key(&key.0, &of_own)?;
    let mut anchors = certificates(data, ROOTS)?.unwrap_or_default();
    if anchors.len() > MOST_ROOTS {
        return Err(ProvidedError::TooManyRoots);
    }
    if anchors.is_empty() {
        let last = own.last().ok_or(ProvidedError::NoRoot)?;
        let of_last = facts(last, CERTIFICATE)?;
        if of_last.subject != of_last.issuer {
            return Err(ProvidedError::NoRoot);
        }
        anchors.push(last.clone());
    }
    // Peers have the roots already.
    let is_root = |certificate: &&CertificateDer<'_>| !anchors.contains(certificate);
    let chain: Vec<_> = own.iter().take_while(is_root).cloned().collect();
    if chain.len() > MOST_BETWEEN {
        return Err(ProvidedError::TooLong);
    }
    let mut ends = check(&own[0], 1, now)?;
    for (place, certificate) in chain.iter().enumerate().skip(1) {
        ends = ends.min(check(certificate, place as u32 + 1, now)?);
    }
    let anchored = anchors.iter().map(|root| Ok(facts(root, ROOTS)?.not_after));
    let anchored = anchored.collect::<Result<Vec<_>, ProvidedError>>()?;
    ends = ends.min(anchored.into_iter().max().unwrap_or(ends));
    let authority = Authority { certificate: own[0].clone(), facts: of_own, key: Arc::new(key) };
    Ok(Issuer { authority, above: Above { chain, anchors, ends } })
}

fn certificates(
    data: &BTreeMap<String, ByteString>,
    entry: &'static str,
) -> Result<Option<Vec<CertificateDer<'static>>>, ProvidedError> {
    let Some(text) = data.get(entry).filter(|text| !text.0.is_empty()) else {
        return Ok(None);
    };
    let found = x509::certificates(&text.0);
    found.map(Some).map_err(|error| ProvidedError::Certificate { entry, error })
}

fn facts(
    certificate: &CertificateDer<'_>,
    entry: &'static str,
) -> Result<CertificateFacts, ProvidedError> {
    let facts = CertificateFacts::of(certificate);
    facts.map_err(|error| ProvidedError::Certificate { entry, error })
}

/// When an authority ends that has so many authorities below it.
fn check(
    certificate: &CertificateDer<'_>,
    below: u32,
    now: SystemTime,
) -> Result<SystemTime, ProvidedError> {
    let CertificateFacts { subject, not_before, not_after, .. } = facts(certificate, CERTIFICATE)?;
    let unreadable =
        || ProvidedError::Certificate { entry: CERTIFICATE, error: X509Error::BadCertificate(1) };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
    let constraints = parsed.basic_constraints().map_err(|_| unreadable())?;
    let Some(constraints) = constraints.filter(|constraints| constraints.value.ca) else {
        return Err(ProvidedError::NotAnAuthority(subject));
    };
    let usage = parsed.key_usage().map_err(|_| unreadable())?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(ProvidedError::KeyUsage(subject));
    }
    match constraints.value.path_len_constraint {
        Some(allowed) if allowed < below => {
            return Err(ProvidedError::PathLength { subject, allowed, needed: below });
        }
        _ => {}
    }
    if not_after <= now {
        return Err(ProvidedError::Ended(subject));
    }
    if not_before > now {
        return Err(ProvidedError::NotYet(subject));
    }
    Ok(not_after)
}

#[cfg(test)]
mod tests;
