//! The identities of workloads, ready for handshakes: what sources have given, with the TLS configurations made from it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use sheath_common::workload::WorkloadId;

use crate::follow::Problem;
use crate::identity::Svid;
use crate::telemetry::rfc3339;
use crate::tls::TlsConfigs;

/// A workload's identity, ready for use.
#[derive(Debug)]
pub struct Credentials {
    /// The certificate, its key and its identity.
    pub svid: Arc<Svid>,
    /// The TLS configurations that were made from it.
    pub tls: TlsConfigs,
}

/// The state of one workload's identity.
#[derive(Clone, Debug)]
pub struct IdentityState {
    /// `None` before the first snapshot, and after the identity was withdrawn.
    pub credentials: Option<Arc<Credentials>>,
    /// Kind of its source.
    pub source: &'static str,
    /// Why there is no identity, or no newer one.
    pub problem: Option<IdentityProblem>,
    /// When the source plans the next renewal, if it knows.
    pub next_renewal: Option<SystemTime>,
}

/// What is wrong with a workload's identity.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum IdentityProblem {
    #[error("its source has delivered nothing yet")]
    Silent,
    /// The source reports a problem.
    #[error("{0}")]
    Source(Problem),
    /// No TLS configuration can be made from it.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("the certificate has expired, and the source has given no other")]
    Expired,
    #[error(
        "the certificate is not valid yet, but from {} on: the clock was ahead when it was made, or is behind now",
        rfc3339(*not_before)
    )]
    NotValidYet { not_before: SystemTime },
}

/// Why a workload cannot prove its identity.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoIdentity {
    #[error("the workload has no identity: {0}")]
    Missing(IdentityProblem),
    #[error("the workload cannot prove its identity any more: {0}")]
    Expired(IdentityProblem),
}

impl Credentials {
    /// Why peers would refuse the certificate now, if they would.
    fn trouble(&self, now: SystemTime) -> Option<IdentityProblem> {
        if self.svid.has_expired(now) {
            return Some(IdentityProblem::Expired);
        }
        let not_before = self.svid.facts.not_before;
        self.svid.is_not_valid_yet(now).then_some(IdentityProblem::NotValidYet { not_before })
    }
}

impl IdentityState {
    /// What is wrong with the identity, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<IdentityProblem> {
        let problem = self.problem.clone();
        problem.or_else(|| self.credentials.as_ref()?.trouble(SystemTime::now()))
    }
}

/// The current identities of all workloads. Reading takes no lock.
#[derive(Debug, Default)]
pub struct Identities {
    held: ArcSwap<HashMap<WorkloadId, Arc<IdentityState>>>,
}

impl Identities {
    /// The credentials for a new flow of a workload.
    ///
    /// # Errors
    /// If there are none, or if they have expired.
    pub fn current(&self, workload: WorkloadId) -> Result<Arc<Credentials>, NoIdentity> {
        let held = self.held(workload);
        let reason =
            || held.as_ref().and_then(|held| held.trouble()).unwrap_or(IdentityProblem::Silent);
        match held.as_ref().and_then(|held| held.credentials.clone()) {
            None => Err(NoIdentity::Missing(reason())),
            Some(credentials) if credentials.svid.has_expired(SystemTime::now()) => {
                Err(NoIdentity::Expired(reason()))
            }
            Some(credentials) => Ok(credentials),
        }
    }

    #[must_use]
    pub fn held(&self, workload: WorkloadId) -> Option<Arc<IdentityState>> {
        self.held.load().get(&workload).cloned()
    }

    /// Replaces all identities. Existing flows keep their credentials.
    pub fn publish(&self, held: HashMap<WorkloadId, Arc<IdentityState>>) {
        self.held.store(Arc::new(held));
    }
}
