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
use crate::x509::{self, CertificateFacts, Fingerprint, X509Error};

/// The form of the document: 1 with roots of the controller's own alone, 2 with somebody else's CA among them. Another one is refused:
/// whoever wrote it knew more.
const FORM: u32 = 2;
const FORM_OF_OWN: u32 = 1;
/// Roots that a CA may have at a time. There are two while one follows another.
pub const MOST_ROOTS: usize = 8;

/// All of a CA.
#[derive(Clone, Debug)]
pub struct State {
    /// The oldest first. Not empty.
    pub roots: Vec<Root>,
    /// Signs SVIDs. One of the roots has signed it.
    pub intermediate: Authority,
    /// Which one, by its certificate. `None` if it is known by its name: those of the controller's own roots differ.
    pub signed_by: Option<Fingerprint>,
}

/// A root.
#[derive(Clone, Debug)]
pub struct Root {
    pub authority: Authority,
    /// Since when it is among the roots that agents are told. `None` until that is known.
    pub distributed: Option<SystemTime>,
    /// When the last of the certificates below it ends.
    pub signed_until: SystemTime,
    /// What is above it, if it is somebody else's.
    pub above: Option<Above>,
}

impl Root {
    /// When what is signed with it proves nothing any more.
    #[must_use]
    pub fn ends(&self) -> SystemTime {
        let own = self.authority.facts.not_after;
        self.above.as_ref().map_or(own, |above| own.min(above.ends))
    }

    /// True if it is this CA of somebody else's.
    #[must_use]
    pub fn is_of(&self, issuer: &Issuer) -> bool {
        self.authority.certificate == issuer.authority.certificate
            && self.above.as_ref() == Some(&issuer.above)
    }

    /// What agents are told to trust of it.
    #[must_use]
    pub fn anchors(&self) -> &[CertificateDer<'static>] {
        match &self.above {
            Some(above) => &above.anchors,
            None => std::slice::from_ref(&self.authority.certificate),
        }
    }
}

/// A CA that can be used.
#[derive(Clone, Debug)]
pub struct Issuer {
    pub authority: Authority,
    pub above: Above,
}

/// What is above a CA that is none of the controller's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Above {
    /// What goes with each SVID, the CA itself first; empty if it is a root.
    pub chain: Vec<CertificateDer<'static>>,
    /// What agents are told. Not empty.
    pub anchors: Vec<CertificateDer<'static>>,
    /// When the first of them ends on the way to a root.
    pub ends: SystemTime,
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
    #[error("`signedBy` in it is no fingerprint")]
    SignedBy,
    #[error("a time in it is out of all range")]
    Time,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    form: u32,
    roots: Vec<RootEntry>,
    intermediate: Entry,
    /// In hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed_by: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RootEntry {
    authority: Entry,
    /// Seconds since 1970.
    distributed: Option<u64>,
    signed_until: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    above: Option<AboveEntry>,
}

/// Certificates in PEM, one after the other.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AboveEntry {
    chain: String,
    anchors: String,
    /// Seconds since 1970.
    ends: u64,
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
        if form != FORM && form != FORM_OF_OWN {
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
                    above: root.above.map(AboveEntry::read).transpose()?,
                })
            })
            .collect::<Result<_, StateError>>()?;
        let intermediate = document.intermediate.read("the intermediate")?;
        // Of somebody else's CA nobody asks that it names the domain.
        let own = roots.iter().filter(|root| root.above.is_none()).map(|root| &root.authority);
        let is_foreign = |authority: &&Authority| {
            !issuing::uri_names(&authority.certificate).contains(&trust_domain.id())
        };
        if let Some(authority) = own.chain([&intermediate]).find(is_foreign) {
            return Err(StateError::OtherDomain {
                root: authority.facts.subject.clone(),
                domain: trust_domain.clone(),
            });
        }
        let signed_by = document.signed_by.map(|text| Fingerprint::parse(&text));
        let signed_by = signed_by.map(|parsed| parsed.ok_or(StateError::SignedBy)).transpose()?;
        let state = Self { roots, intermediate, signed_by };
        if state.signer().is_none() {
            return Err(StateError::Orphan(state.intermediate.facts.issuer.clone()));
        }
        Ok(state)
    }

    #[must_use]
    pub fn write(&self) -> Zeroizing<Vec<u8>> {
        let is_own = self.roots.iter().all(|root| root.above.is_none());
        let document = Document {
            form: if is_own { FORM_OF_OWN } else { FORM },
            roots: self
                .roots
                .iter()
                .map(|root| RootEntry {
                    authority: Entry::of(&root.authority),
                    distributed: root.distributed.map(seconds),
                    signed_until: seconds(root.signed_until),
                    above: root.above.as_ref().map(AboveEntry::of),
                })
                .collect(),
            intermediate: Entry::of(&self.intermediate),
            signed_by: self.signed_by.filter(|_| !is_own).map(|known| known.to_string()),
        };
        // A document of texts and numbers can always be written.
        Zeroizing::new(serde_json::to_vec_pretty(&document).unwrap_or_default())
    }

    /// The place of the root that has signed the intermediate.
    #[must_use]
    pub fn signer(&self) -> Option<usize> {
        let issuer = &self.intermediate.facts.issuer;
        self.roots.iter().position(|root| match self.signed_by {
            Some(signed_by) => root.authority.facts.fingerprint == signed_by,
            None => root.authority.facts.subject == *issuer,
        })
    }

    /// What goes with each SVID, from what has signed it upwards.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let signer = self.signer().and_then(|place| self.roots.get(place));
        let above = signer.and_then(|root| root.above.as_ref());
        let above = above.map(|above| above.chain.clone()).unwrap_or_default();
        std::iter::once(self.intermediate.certificate.clone()).chain(above).collect()
    }

    /// When the root that has signed the intermediate ends, and when that itself does.
    #[must_use]
    pub fn ends(&self) -> (SystemTime, SystemTime) {
        let intermediate = self.intermediate.facts.not_after;
        let root = self.signer().and_then(|place| self.roots.get(place));
        (root.map_or(intermediate, Root::ends), intermediate)
    }

    /// What is to be trusted.
    #[must_use]
    pub fn root_certificates(&self) -> Vec<CertificateDer<'static>> {
        let mut all: Vec<CertificateDer<'static>> = Vec::new();
        for anchor in self.roots.iter().flat_map(Root::anchors) {
            if !all.contains(anchor) {
                all.push(anchor.clone());
            }
        }
        all
    }
}

impl AboveEntry {
    fn of(above: &Above) -> Self {
        let all = |certificates: &[CertificateDer<'_>]| certificates.iter().map(pem_of).collect();
        Self { chain: all(&above.chain), anchors: all(&above.anchors), ends: seconds(above.ends) }
    }

    fn read(self) -> Result<Above, StateError> {
        let all = |text: &str| match x509::certificates(text.as_bytes()) {
            Err(X509Error::NoCertificate) => Ok(Vec::new()),
            read => read
                .map_err(|error| StateError::Certificate { what: "what is above a root", error }),
        };
        let (chain, anchors) = (all(&self.chain)?, all(&self.anchors)?);
        if anchors.is_empty() {
            let error = X509Error::NoCertificate;
            return Err(StateError::Certificate { what: "what is above a root", error });
        }
        Ok(Above { chain, anchors, ends: time(self.ends)? })
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
