//! What the configuration takes from files besides identities: bundles, CRLs, pinned certificates, and the key
//! pairs of TLS contexts. Each is read again when its files change, and keeps its last good content when they
//! turn bad.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use super::system_authorities;
use crate::desired::{
    Authorities, CrlFiles, Desired, PinSource, StandardTls, TlsContext, TrustChoice,
};
use crate::sys::files;
use crate::trust::{Anchors, OnDoubt, Pin, Revocation, VerifiedChains, reason};
use crate::x509::{self, CertificateFile, CrlFacts, Fingerprint, KeyPair};

/// The last good content of some files, and why the latest is not used, if it is not.
#[derive(Clone, Debug)]
pub struct Kept<T> {
    pub value: Option<T>,
    /// When `value` was read first.
    pub since: SystemTime,
    pub problem: Option<String>,
    fingerprint: Option<Fingerprint>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { value: None, since: SystemTime::UNIX_EPOCH, problem: None, fingerprint: None }
    }
}

impl<T> Kept<T> {
    /// Takes what was read. Returns true if that changes the value.
    fn take(&mut self, what: &str, read: Result<(T, Fingerprint), String>) -> bool {
        match read {
            Ok((_, fingerprint)) if self.fingerprint == Some(fingerprint) => {
                self.problem = None;
                false
            }
            Ok((value, fingerprint)) => {
                if self.value.is_some() {
                    tracing::info!(file = what, "read again");
                }
                *self = Self {
                    value: Some(value),
                    since: SystemTime::now(),
                    problem: None,
                    fingerprint: Some(fingerprint),
                };
                true
            }
            Err(problem) => {
                if self.problem.as_ref() != Some(&problem) {
                    let kept = self.value.is_some();
                    tracing::error!(file = what, kept, problem, "cannot be used");
                }
                self.problem = Some(problem);
                false
            }
        }
    }
}

/// The CRLs of one entry, and what people want to know of them.
#[derive(Clone, Debug)]
pub struct CrlSet {
    pub revocation: Arc<Revocation>,
    pub facts: Vec<(PathBuf, CrlFacts)>,
}

/// Everything that was read. The keys are what the configuration says.
#[derive(Clone, Debug, Default)]
pub struct Materials {
    pub certificates: BTreeMap<PathBuf, Kept<Vec<CertificateDer<'static>>>>,
    pub crls: Vec<(CrlFiles, Kept<CrlSet>)>,
    pub contexts: BTreeMap<String, (Arc<TlsContext>, Kept<KeyPair>)>,
    /// Authorities that the system trusts, if any entry wants them.
    pub system: Option<Kept<Vec<CertificateDer<'static>>>>,
    /// Chains that were verified, for whichever workload. They are known by the content of what they were
    /// verified by, so they stay when anything is read again.
    pub verified: Arc<VerifiedChains>,
}

impl Materials {
    /// Takes over what a configuration names, keeping what was read already, and forgets the rest.
    pub fn follow(&mut self, desired: &Desired) {
        let named = Named::of(desired);
        let mut certificates = std::mem::take(&mut self.certificates);
        self.certificates = named
            .certificates
            .into_iter()
            .map(|path| {
                let kept = certificates.remove(&path).unwrap_or_default();
                (path, kept)
            })
            .collect();
        let mut crls = std::mem::take(&mut self.crls);
        for config in named.crls {
            if self.crls.iter().any(|(known, _)| *known == config) {
                continue;
            }
            let old = crls.iter().position(|(known, _)| *known == config);
            let kept = old.map(|index| crls.swap_remove(index).1).unwrap_or_default();
            self.crls.push((config, kept));
        }
        let mut contexts = std::mem::take(&mut self.contexts);
        self.contexts = desired
            .tls_contexts
            .iter()
            .map(|context| {
                let kept = match contexts.remove(&context.name) {
                    Some((old, kept)) if old.files == context.files => kept,
                    _ => Kept::default(),
                };
                (context.name.clone(), (context.clone(), kept))
            })
            .collect();
        self.system = named.system.then(|| self.system.take().unwrap_or_default());
        self.refresh();
    }

    /// Reads everything again. Returns true if anything is new.
    pub fn refresh(&mut self) -> bool {
        let mut changed = false;
        for (path, kept) in &mut self.certificates {
            changed |= kept.take(&path.display().to_string(), read_certificates(path));
        }
        for (config, kept) in &mut self.crls {
            let what: Vec<_> = config.files.iter().map(|file| file.display().to_string()).collect();
            changed |= kept.take(&what.join(", "), read_crls(config));
        }
        for (name, (config, kept)) in &mut self.contexts {
            changed |= kept.take(name, read_context(config));
        }
        if let Some(kept) = &mut self.system {
            changed |= kept.take("the system's authorities", system_authorities::read());
        }
        changed
    }

    /// Everything that cannot be read as it is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let certificates = self.certificates.values().filter_map(|kept| kept.problem.clone());
        let crls = self.crls.iter().filter_map(|(_, kept)| kept.problem.clone());
        let contexts = self.contexts.values().filter_map(|(_, kept)| kept.problem.clone());
        let system = self.system.iter().filter_map(|kept| kept.problem.clone());
        certificates.chain(crls).chain(contexts).chain(system).collect()
    }

    /// The files to watch.
    #[must_use]
    pub fn paths(&self) -> BTreeSet<PathBuf> {
        let certificates = self.certificates.keys().cloned();
        let crls = self.crls.iter().flat_map(|(config, _)| config.files.iter().cloned());
        let contexts = self
            .contexts
            .values()
            .flat_map(|(config, _)| [config.files.certificate.clone(), config.files.key.clone()]);
        certificates.chain(crls).chain(contexts).collect()
    }

    /// Certificates of a file; none if it could never be read.
    #[must_use]
    pub fn certificates(&self, path: &Path) -> &[CertificateDer<'static>] {
        self.certificates.get(path).and_then(|kept| kept.value.as_deref()).unwrap_or_default()
    }

    /// When the certificates of a file were read.
    #[must_use]
    pub fn since(&self, path: &Path) -> SystemTime {
        self.certificates.get(path).map_or(SystemTime::UNIX_EPOCH, |kept| kept.since)
    }

    #[must_use]
    pub fn system(&self) -> &[CertificateDer<'static>] {
        self.system.as_ref().and_then(|kept| kept.value.as_deref()).unwrap_or_default()
    }

    /// The revocation that an entry asks for. Where its CRLs could never be read, the status of every
    /// certificate is unknown and nobody is let through by `allow`: files that are named are meant to be read.
    #[must_use]
    pub fn revocation(&self, config: &CrlFiles) -> Option<Arc<Revocation>> {
        let (_, kept) = self.crls.iter().find(|(known, _)| known == config)?;
        match &kept.value {
            Some(set) => Some(set.revocation.clone()),
            None => Revocation::new(&[], OnDoubt::Deny, OnDoubt::Deny).ok().map(Arc::new),
        }
    }

    /// Pins as digests. A file that could never be read pins nothing.
    #[must_use]
    pub fn pins(&self, pins: &[PinSource]) -> Vec<Pin> {
        pins.iter()
            .flat_map(|pin| match pin {
                PinSource::Digest(pin) => vec![*pin],
                PinSource::File(path) => self
                    .certificates(path)
                    .iter()
                    .map(|certificate| Pin::Certificate(Fingerprint::of(certificate)))
                    .collect(),
            })
            .collect()
    }
}

/// The files that a configuration names.
#[derive(Default)]
struct Named {
    certificates: BTreeSet<PathBuf>,
    crls: Vec<CrlFiles>,
    system: bool,
}

impl Named {
    fn of(desired: &Desired) -> Self {
        let mut named = Self::default();
        for domain in &desired.trust_domains {
            named.certificates.extend(domain.bundle.clone());
            named.crls.extend(domain.crl.clone());
        }
        for peer in &desired.peers {
            named.add_pins(&peer.pins);
        }
        for peer in &desired.external_peers {
            named.add_tls(&peer.tls);
        }
        for workload in &desired.workloads {
            named.add_pins(&workload.inbound.allow_pins);
            if let Some(inbound) = &workload.inbound.tls {
                named.add_tls(&inbound.tls);
            }
        }
        named
    }

    fn add_tls(&mut self, tls: &StandardTls) {
        self.add_pins(&tls.pins);
        match &tls.trust {
            Some(TrustChoice::Authorities { authorities, crl, .. }) => {
                match authorities {
                    Authorities::File(path) => drop(self.certificates.insert(path.clone())),
                    Authorities::System => self.system = true,
                }
                self.crls.extend(crl.clone());
            }
            Some(TrustChoice::Spiffe(_)) | None => {}
        }
    }

    fn add_pins(&mut self, pins: &[PinSource]) {
        for pin in pins {
            if let PinSource::File(path) = pin {
                self.certificates.insert(path.clone());
            }
        }
    }
}

fn read_certificates(path: &Path) -> Result<(Vec<CertificateDer<'static>>, Fingerprint), String> {
    let CertificateFile { certificates, bytes } =
        CertificateFile::read(path).map_err(|error| error.to_string())?;
    // webpki knows best what it can use.
    Anchors::new(&certificates)
        .map_err(|error| format!("{}: {}", path.display(), reason(&error)))?;
    Ok((certificates, Fingerprint::of(&bytes)))
}

fn read_crls(config: &CrlFiles) -> Result<(CrlSet, Fingerprint), String> {
    let mut lists = Vec::new();
    let mut facts = Vec::new();
    let mut everything = Vec::new();
    for path in &config.files {
        let within = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = files::read(path, files::CRLS)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let found = x509::crls(&bytes).map_err(|error| within(&error))?;
        // Each by itself, so that a bad one is found under its own file's name.
        Revocation::new(&found, config.unknown, config.expired).map_err(|error| within(&error))?;
        facts.extend(
            found.iter().filter_map(|list| Some((path.clone(), CrlFacts::of(list.as_ref())?))),
        );
        lists.extend(found);
        everything.extend(bytes);
    }
    let revocation = Revocation::new(&lists, config.unknown, config.expired)
        .map_err(|error| error.to_string())?;
    Ok((CrlSet { revocation: Arc::new(revocation), facts }, Fingerprint::of(&everything)))
}

fn read_context(config: &TlsContext) -> Result<(KeyPair, Fingerprint), String> {
    let pair = KeyPair::read(&config.files).map_err(|error| error.to_string())?;
    let now = SystemTime::now();
    if now < pair.facts.not_before || pair.facts.not_after <= now {
        return Err(format!("{} is not valid now", config.files.certificate.display()));
    }
    let chain: Vec<u8> = pair.key.cert.iter().flat_map(|der| der.to_vec()).collect();
    Ok((pair, Fingerprint::of(&chain)))
}
