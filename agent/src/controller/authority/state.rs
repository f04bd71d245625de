//! The CA as its Secret has it: one document, so that nobody ever sees half of a change.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::identity::issuing::{self, UnfitKey};
use crate::spiffe::TrustDomain;
use crate::x509::{self, CertificateFacts, X509Error};

/// The form of the document. Another one is refused: whoever wrote it knew more.
const FORM: u32 = 1;
/// Roots that a CA may have at a time. There are two while one follows another.
pub const MOST_ROOTS: usize = 8;

/// All of a CA.
#[derive(Clone, Debug)]
pub struct State {
    /// The oldest first. Not empty.
    pub roots: Vec<Root>,
    /// Signs SVIDs. One of the roots has signed it.
    pub intermediate: Authority,
}

/// A root.
#[derive(Clone, Debug)]
pub struct Root {
    pub authority: Authority,
    /// Since when it is among the roots that agents are told. `None` until that is known.
    pub distributed: Option<SystemTime>,
    /// When the last of the certificates below it ends.
    pub signed_until: SystemTime,
}

/// A certificate that signs others, and its key.
#[derive(Clone)]
pub struct Authority {
    pub certificate: CertificateDer<'static>,
    pub facts: CertificateFacts,
    pub key: Arc<Zeroizing<KeyPair>>,
}

impl fmt::Debug for Authority {
    /// Without its key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("subject", &self.facts.subject).finish_non_exhaustive()
    }
}

/// Why a document is no CA.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("it is not the JSON that a controller writes (line {line})")]
    Malformed { line: usize },
    #[error("it has the form {0}, and this controller knows {FORM}: is it of a newer one?")]
    Form(u32),
    #[error("it has {0} roots, where 1 to {MOST_ROOTS} are wanted")]
    Roots(usize),
    #[error("{what}: {error}")]
    Certificate { what: &'static str, error: X509Error },
    #[error("{what}: {error}")]
    Key { what: &'static str, error: UnfitKey },
    #[error("the intermediate is of {0}, which is none of the roots")]
    Orphan(String),
    #[error(
        "its root {root} is not of the trust domain {domain}; is `trustDomain` another one than before?"
    )]
    OtherDomain { root: String, domain: TrustDomain },
    #[error("a time in it is out of all range")]
    Time,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    form: u32,
    roots: Vec<RootEntry>,
    intermediate: Entry,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RootEntry {
    authority: Entry,
    /// Seconds since 1970.
    distributed: Option<u64>,
    signed_until: u64,
}

/// Both in PEM.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    certificate: String,
    key: Zeroizing<String>,
}

impl State {
    /// # Errors
    /// If anything about it is not as a controller writes it.
    pub fn read(document: &[u8], trust_domain: &TrustDomain) -> Result<Self, StateError> {
        // Before all of it, which another form need not have.
        #[derive(Deserialize)]
        struct Form {
            form: u32,
        }
        let malformed = |error: serde_json::Error| StateError::Malformed { line: error.line() };
        let Form { form } = serde_json::from_slice(document).map_err(malformed)?;
        if form != FORM {
            return Err(StateError::Form(form));
        }
        let document: Document = serde_json::from_slice(document).map_err(malformed)?;
        if document.roots.is_empty() || document.roots.len() > MOST_ROOTS {
            return Err(StateError::Roots(document.roots.len()));
        }
        let roots: Vec<_> = document
            .roots
            .into_iter()
            .map(|root| {
                Ok(Root {
                    authority: root.authority.read("a root")?,
                    distributed: root.distributed.map(time).transpose()?,
                    signed_until: time(root.signed_until)?,
                })
            })
            .collect::<Result<_, StateError>>()?;
        let is_foreign = |root: &&Root| {
            !issuing::uri_names(&root.authority.certificate).contains(&trust_domain.id())
        };
        if let Some(root) = roots.iter().find(is_foreign) {
            return Err(StateError::OtherDomain {
                root: root.authority.facts.subject.clone(),
                domain: trust_domain.clone(),
            });
        }
        let intermediate = document.intermediate.read("the intermediate")?;
        let state = Self { roots, intermediate };
        if state.signer().is_none() {
            return Err(StateError::Orphan(state.intermediate.facts.issuer.clone()));
        }
        Ok(state)
    }

    #[must_use]
    pub fn write(&self) -> Zeroizing<Vec<u8>> {
        let document = Document {
            form: FORM,
            roots: self
                .roots
                .iter()
                .map(|root| RootEntry {
                    authority: Entry::of(&root.authority),
                    distributed: root.distributed.map(seconds),
                    signed_until: seconds(root.signed_until),
                })
                .collect(),
            intermediate: Entry::of(&self.intermediate),
        };
        // A document of texts and numbers can always be written.
        Zeroizing::new(serde_json::to_vec_pretty(&document).unwrap_or_default())
    }

    /// The place of the root that has signed the intermediate.
    #[must_use]
    pub fn signer(&self) -> Option<usize> {
        let issuer = &self.intermediate.facts.issuer;
        self.roots.iter().position(|root| root.authority.facts.subject == *issuer)
    }

    /// What is to be trusted.
    #[must_use]
    pub fn root_certificates(&self) -> Vec<CertificateDer<'static>> {
        self.roots.iter().map(|root| root.authority.certificate.clone()).collect()
    }
}

impl Entry {
    fn of(authority: &Authority) -> Self {
        Self {
            certificate: pem_of(&authority.certificate),
            key: Zeroizing::new(authority.key.serialize_pem()),
        }
    }

    fn read(self, what: &'static str) -> Result<Authority, StateError> {
        let malformed = |error| StateError::Certificate { what, error };
        let mut found = x509::certificates(self.certificate.as_bytes()).map_err(malformed)?;
        let (Some(certificate), true) = (found.pop(), found.is_empty()) else {
            return Err(malformed(X509Error::TooMany));
        };
        let facts = CertificateFacts::of(&certificate).map_err(malformed)?;
        let key = issuing::key(self.key.as_bytes(), &facts)
            .map_err(|error| StateError::Key { what, error })?;
        Ok(Authority { certificate, facts, key: Arc::new(key) })
    }
}

/// A certificate in PEM.
#[must_use]
pub fn pem_of(certificate: &CertificateDer<'_>) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", certificate.to_vec()), config)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn time(seconds: u64) -> Result<SystemTime, StateError> {
    /// Certificates know no later one (RFC 5280, 4.1.2.5): the end of the year 9999.
    const LATEST: u64 = 253_402_300_799;
    if seconds > LATEST {
        return Err(StateError::Time);
    }
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
