//! The answer to `sheath certs`: our own certificates, and everything that peers' certificates are verified by. Never a
//! key.

use std::time::SystemTime;

use serde::Serialize;

use super::Control;
use crate::desired::Workload;
use crate::telemetry::rfc3339;
use crate::trust::DomainTrust;
use crate::x509::{CertificateFacts, Fingerprint};

/// The answer. The names of its fields are stable; times are in RFC 3339.
#[derive(Clone, Debug, Serialize)]
pub struct CertificatesView {
    pub certificates: Vec<CertificateView>,
    pub trust: Vec<TrustView>,
    pub files: Vec<FileView>,
}

/// A certificate of our own.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateView {
    /// Name of the workload, or of the TLS context.
    pub name: String,
    /// `workload` or `context`.
    pub kind: &'static str,
    /// `ca`, `files` or `spire`.
    pub source: &'static str,
    pub spiffe_id: Option<String>,
    pub serial: Option<String>,
    pub issuer: Option<String>,
    pub sha256: Option<String>,
    pub not_before: Option<String>,
    pub not_after: Option<String>,
    pub next_renewal: Option<String>,
    /// `ok`, `stale` (still good, but not refreshed), `expired` or `missing`.
    pub state: &'static str,
    /// What is wrong with it, if anything is.
    pub problem: Option<String>,
}

/// The trust of one workload in one trust domain.
#[derive(Clone, Debug, Serialize)]
pub struct TrustView {
    pub workload: String,
    pub trust_domain: String,
    pub authorities: Vec<AuthorityView>,
    /// True if certificates are checked against CRLs.
    pub revocation: bool,
    /// Time since the bundle was loaded.
    pub age_seconds: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct AuthorityView {
    pub subject: String,
    pub serial: String,
    pub sha256: String,
    pub not_after: String,
}

/// A file with bundles, pinned certificates or CRLs.
#[derive(Clone, Debug, Serialize)]
pub struct FileView {
    pub path: String,
    /// `certificates` or `crl`.
    pub kind: &'static str,
    /// Certificates in it, or certificates that it revokes.
    pub entries: Option<usize>,
    /// Of a CRL.
    pub this_update: Option<String>,
    pub next_update: Option<String>,
    /// Time since its content was loaded.
    pub age_seconds: Option<u64>,
    pub problem: Option<String>,
}

impl Control {
    pub(super) fn certificates(&self) -> CertificatesView {
        let mut certificates: Vec<_> =
            self.desired.workloads.iter().map(|workload| self.of_workload(workload)).collect();
        certificates.extend(self.of_contexts());
        CertificatesView { certificates, trust: self.trust_views(), files: self.file_views() }
    }

    fn of_workload(&self, workload: &Workload) -> CertificateView {
        let held = self.published.identities.held(workload.id);
        let credentials = held.as_ref().and_then(|held| held.credentials.as_ref());
        let facts = credentials.map(|credentials| &credentials.svid.facts);
        let problem =
            held.as_ref().and_then(|held| held.trouble()).map(|trouble| trouble.to_string());
        let id = credentials.and_then(|credentials| credentials.svid.id.as_ref());
        let id = id.or(workload.spiffe_id.as_ref()).map(ToString::to_string);
        let renewal = held.as_ref().and_then(|held| held.next_renewal).map(rfc3339);
        let mut view = CertificateView::new(workload.name.clone(), "workload", facts, problem);
        view.source = held.as_ref().map_or("", |held| held.source);
        view.spiffe_id = id;
        view.next_renewal = renewal;
        view
    }

    fn of_contexts(&self) -> impl Iterator<Item = CertificateView> {
        self.materials.key_pairs().map(|(name, known)| {
            let facts = known.value.as_ref().map(|pair| &pair.facts);
            let problem = known.problem.as_ref().map(ToString::to_string);
            CertificateView::new(name.to_owned(), "context", facts, problem)
        })
    }

    fn trust_views(&self) -> Vec<TrustView> {
        let mut views = Vec::new();
        for workload in &self.desired.workloads {
            let held = self.published.identities.held(workload.id);
            let Some(credentials) = held.and_then(|held| held.credentials.clone()) else {
                continue;
            };
            for (name, trust) in credentials.tls.trust().domains() {
                views.push(TrustView {
                    workload: workload.name.clone(),
                    trust_domain: name.to_string(),
                    authorities: authorities(trust),
                    revocation: trust.revocation.is_some(),
                    age_seconds: age(trust.bundle.loaded()),
                });
            }
        }
        views
    }

    fn file_views(&self) -> Vec<FileView> {
        let mut views = Vec::new();
        for (path, known) in self.materials.files() {
            views.push(FileView {
                path: path.display().to_string(),
                kind: "certificates",
                entries: known.value.as_ref().map(Vec::len),
                this_update: None,
                next_update: None,
                age_seconds: known.value.as_ref().map(|_| age(known.since)),
                problem: known.problem.as_ref().map(ToString::to_string),
            });
        }
        for (crls, known) in self.materials.crls() {
            for path in &crls.files {
                let lists = known.value.iter().flat_map(|set| &set.facts);
                let own: Vec<_> =
                    lists.filter(|(file, _)| file == path).map(|(_, facts)| facts).collect();
                views.push(FileView {
                    path: path.display().to_string(),
                    kind: "crl",
                    entries: known
                        .value
                        .as_ref()
                        .map(|_| own.iter().map(|facts| facts.revoked).sum()),
                    this_update: own.iter().map(|facts| facts.this_update).max().map(rfc3339),
                    next_update: own
                        .iter()
                        .filter_map(|facts| facts.next_update)
                        .min()
                        .map(rfc3339),
                    age_seconds: known.value.as_ref().map(|_| age(known.since)),
                    problem: known.problem.as_ref().map(ToString::to_string),
                });
            }
        }
        views
    }
}

impl CertificateView {
    fn new(
        name: String,
        kind: &'static str,
        facts: Option<&CertificateFacts>,
        problem: Option<String>,
    ) -> Self {
        let state = match facts {
            None => "missing",
            Some(facts) if facts.not_after <= SystemTime::now() => "expired",
            Some(facts) if SystemTime::now() < facts.not_before => "not yet",
            Some(_) if problem.is_some() => "stale",
            Some(_) => "ok",
        };
        Self {
            name,
            kind,
            source: "files",
            spiffe_id: None,
            serial: facts.map(|facts| facts.serial.clone()),
            issuer: facts.map(|facts| facts.issuer.clone()),
            sha256: facts.map(|facts| facts.fingerprint.to_string()),
            not_before: facts.map(|facts| rfc3339(facts.not_before)),
            not_after: facts.map(|facts| rfc3339(facts.not_after)),
            next_renewal: None,
            state,
            problem,
        }
    }
}

/// In seconds.
fn age(since: SystemTime) -> u64 {
    since.elapsed().unwrap_or_default().as_secs()
}

fn authorities(trust: &DomainTrust) -> Vec<AuthorityView> {
    let authorities = trust.bundle.authorities().iter();
    authorities
        .filter_map(|der| {
            let facts = CertificateFacts::of(der).ok()?;
            Some(AuthorityView {
                subject: facts.subject,
                serial: facts.serial,
                sha256: Fingerprint::of(der).to_string(),
                not_after: rfc3339(facts.not_after),
            })
        })
        .collect()
}
