//! Materials: bundles, pinned certificates, CRLs, and the key pairs of TLS contexts.
//!
//! Each is read again when it changes, and keeps its [last good](LastGood) content when it becomes invalid. The keys of the
//! maps say where a material comes from; `read` reads it from there.

mod last_good;
mod needs;
mod read;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use crate::desired::{CertificateSource, CrlFiles, Desired, PinSource, TlsContext};
use crate::trust::{OnDoubt, Pin, Revocation};
use crate::x509::{Fingerprint, KeyPair};

use needs::Needs;

pub use last_good::LastGood;
pub use read::{CrlSet, MaterialError};

/// All materials.
#[derive(Clone, Debug, Default)]
pub struct Materials {
    certificates: BTreeMap<CertificateSource, LastGood<Vec<CertificateDer<'static>>>>,
    crls: BTreeMap<CrlFiles, LastGood<CrlSet>>,
    /// By the name of the TLS context.
    key_pairs: BTreeMap<String, (Arc<TlsContext>, LastGood<KeyPair>)>,
}

impl Materials {
    /// Follows the materials that the desired state needs: reads new ones, keeps known ones, and forgets the rest.
    pub fn follow(&mut self, desired: &Desired) {
        let needs = Needs::of(desired);
        self.certificates = kept(&mut self.certificates, needs.certificates);
        self.crls = kept(&mut self.crls, needs.crls);
        let mut before = std::mem::take(&mut self.key_pairs);
        let key_pair = |context: &Arc<TlsContext>| {
            let known = match before.remove(&context.name) {
                Some((old, known)) if old.files == context.files => known,
                _ => LastGood::default(),
            };
            (context.name.clone(), (context.clone(), known))
        };
        self.key_pairs = desired.tls_contexts.iter().map(key_pair).collect();
        self.read(true);
    }

    /// Reads all materials again. Returns true if one has changed.
    pub fn refresh(&mut self) -> bool {
        self.read(false)
    }

    fn read(&mut self, only_unread: bool) -> bool {
        let mut changed = false;
        for (source, known) in &mut self.certificates {
            if !only_unread || known.is_unread() {
                changed |= known.take(source, read::certificates(source));
            }
        }
        for (files, known) in &mut self.crls {
            if !only_unread || known.is_unread() {
                changed |= known.take(files, read::crls(files));
            }
        }
        for (name, (context, known)) in &mut self.key_pairs {
            if !only_unread || known.is_unread() {
                changed |= known.take(name, read::key_pair(&context.files));
            }
        }
        changed
    }

    /// Problems of all materials that are invalid now.
    #[must_use]
    pub fn problems(&self) -> Vec<Arc<MaterialError>> {
        let certificates = self.certificates.values().filter_map(|known| known.problem.clone());
        let crls = self.crls.values().filter_map(|known| known.problem.clone());
        let key_pairs = self.key_pairs.values().filter_map(|(_, known)| known.problem.clone());
        certificates.chain(crls).chain(key_pairs).collect()
    }

    /// The files to watch.
    #[must_use]
    pub fn paths(&self) -> BTreeSet<PathBuf> {
        let certificates = self.files().map(|(path, _)| path.to_owned());
        let crls = self.crls.keys().flat_map(|crls| crls.files.iter().cloned());
        let key_pairs = self
            .key_pairs
            .values()
            .flat_map(|(context, _)| [&context.files.certificate, &context.files.key])
            .cloned();
        certificates.chain(crls).chain(key_pairs).collect()
    }

    /// The files with certificates.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &LastGood<Vec<CertificateDer<'static>>>)> {
        self.certificates.iter().filter_map(|(source, known)| match source {
            CertificateSource::File(path) => Some((path.as_path(), known)),
            CertificateSource::System => None,
        })
    }

    /// The CRLs of each entry that has some.
    pub fn crls(&self) -> impl Iterator<Item = (&CrlFiles, &LastGood<CrlSet>)> {
        self.crls.iter()
    }

    /// The key pairs of TLS contexts, by name.
    pub fn key_pairs(&self) -> impl Iterator<Item = (&str, &LastGood<KeyPair>)> {
        self.key_pairs.iter().map(|(name, (_, known))| (name.as_str(), known))
    }

    /// The certificates of a source; empty if it was never readable.
    #[must_use]
    pub fn certificates(&self, source: &CertificateSource) -> &[CertificateDer<'static>] {
        self.certificates.get(source).and_then(|known| known.value.as_deref()).unwrap_or_default()
    }

    /// When the certificates of a source were first read.
    #[must_use]
    pub fn since(&self, source: &CertificateSource) -> SystemTime {
        self.certificates.get(source).map_or(SystemTime::UNIX_EPOCH, |known| known.since)
    }

    /// The key pair of a TLS context; `None` if it was never readable.
    #[must_use]
    pub fn key(&self, context: &str) -> Option<Arc<CertifiedKey>> {
        let (_, known) = self.key_pairs.get(context)?;
        known.value.as_ref().map(|pair| pair.key.clone())
    }

    /// The revocation check of an entry. If its CRLs were never readable, every certificate is refused, even with
    /// `unknown: allow`: a file that is configured must be readable.
    #[must_use]
    pub fn revocation(&self, crls: &CrlFiles) -> Option<Arc<Revocation>> {
        match &self.crls.get(crls)?.value {
            Some(set) => Some(set.revocation.clone()),
            None => Revocation::new(&[], OnDoubt::Deny, OnDoubt::Deny).ok().map(Arc::new),
        }
    }

    /// Pins as digests. A file that was never readable has none.
    #[must_use]
    pub fn pins(&self, pins: &[PinSource]) -> Vec<Pin> {
        let certificates = |path: &PathBuf| {
            let certificates = self.certificates(&CertificateSource::File(path.clone()));
            certificates.iter().map(|der| Pin::Certificate(Fingerprint::of(der))).collect()
        };
        let pins = pins.iter().flat_map(|pin| match pin {
            PinSource::Digest(pin) => vec![*pin],
            PinSource::File(path) => certificates(path),
        });
        pins.collect()
    }
}

/// Keeps what is still needed, and adds empty entries for what is new.
fn kept<K: Ord, T>(
    known: &mut BTreeMap<K, LastGood<T>>,
    wanted: BTreeSet<K>,
) -> BTreeMap<K, LastGood<T>> {
    let mut known = std::mem::take(known);
    let kept = |source| {
        let kept = known.remove(&source).unwrap_or_default();
        (source, kept)
    };
    wanted.into_iter().map(kept).collect()
}
