//! What `sheath certs --output json` says.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Certs {
    pub certificates: Vec<Certificate>,
    pub trust: Vec<Trust>,
    pub files: Vec<File>,
}

/// A certificate of the agent's own.
#[derive(Clone, Debug, Deserialize)]
pub struct Certificate {
    pub name: String,
    pub kind: String,
    pub source: String,
    pub spiffe_id: Option<String>,
    pub serial: Option<String>,
    pub issuer: Option<String>,
    pub sha256: Option<String>,
    pub not_before: Option<String>,
    pub not_after: Option<String>,
    pub next_renewal: Option<String>,
    /// `ok`, `stale`, `expired` or `missing`.
    pub state: String,
    pub problem: Option<String>,
}

/// What one workload believes of one trust domain.
#[derive(Debug, Deserialize)]
pub struct Trust {
    pub workload: String,
    pub trust_domain: String,
    pub authorities: Vec<Authority>,
    pub revocation: bool,
    pub age_seconds: u64,
}

#[derive(Debug, Deserialize)]
pub struct Authority {
    pub subject: String,
    pub serial: String,
    pub sha256: String,
    pub not_after: String,
}

/// A file with bundles, pinned certificates or CRLs.
#[derive(Debug, Deserialize)]
pub struct File {
    pub path: String,
    pub kind: String,
    pub entries: Option<usize>,
    pub this_update: Option<String>,
    pub next_update: Option<String>,
    pub age_seconds: Option<u64>,
    pub problem: Option<String>,
}

impl Certs {
    /// # Panics
    /// When the agent has no certificate of that name.
    pub fn certificate(&self, name: &str) -> &Certificate {
        self.certificates
            .iter()
            .find(|certificate| certificate.name == name)
            .unwrap_or_else(|| panic!("certificate {name} in {self:#?}"))
    }

    /// The subjects of what a workload believes of a trust domain; `None` if it knows nothing of it.
    pub fn authorities(&self, workload: &str, trust_domain: &str) -> Option<Vec<&str>> {
        let of = |trust: &&Trust| trust.workload == workload && trust.trust_domain == trust_domain;
        let trust = self.trust.iter().find(of)?;
        Some(trust.authorities.iter().map(|authority| authority.subject.as_str()).collect())
    }
}

impl Certificate {
    /// In use, and with nothing to say against it.
    pub fn is_fresh(&self, serial: &str) -> bool {
        self.state == "ok" && self.serial.as_deref() == Some(serial) && self.problem.is_none()
    }

    /// Whether the reason why it is not as it should be has these words.
    pub fn complains(&self, words: &str) -> bool {
        self.problem.as_ref().is_some_and(|problem| problem.contains(words))
    }
}
