//! What the identity stage hands to the tls stage: a workload's identity, ready for use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use sheath_common::workload::WorkloadId;

use super::Svid;
use crate::follow::Problem;
use crate::telemetry::rfc3339;
use crate::tls::Contexts;

/// A workload's identity, ready for use.
#[derive(Debug)]
pub struct Credentials {
    pub svid: Arc<Svid>,
    pub contexts: Contexts,
}

/// What is held for one workload.
#[derive(Clone, Debug)]
pub struct Held {
    /// `None` before the first snapshot, and after the identity was withdrawn.
    pub credentials: Option<Arc<Credentials>>,
    /// Kind of its source.
    pub source: &'static str,
    /// Why there is nothing newer, or nothing at all, if that is so.
    pub problem: Option<Trouble>,
    pub next_renewal: Option<SystemTime>,
}

/// Why a workload's identity is not as it should be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Trouble {
    #[error("its source has not said anything yet")]
    Silent,
    /// The latest attempt to get something newer failed.
    #[error("{0}")]
    Source(Problem),
    /// What the source gives cannot be used.
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

/// Why a workload cannot speak for itself.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoIdentity {
    #[error("the workload has no identity: {0}")]
    Missing(Trouble),
    #[error("the workload cannot prove its identity any more: {0}")]
    Expired(Trouble),
}

impl Credentials {
    /// Why peers do not believe it at this time, if that is known.
    fn trouble(&self, now: SystemTime) -> Option<Trouble> {
        if self.svid.has_expired(now) {
            return Some(Trouble::Expired);
        }
        let not_before = self.svid.facts.not_before;
        self.svid.is_not_valid_yet(now).then_some(Trouble::NotValidYet { not_before })
    }
}

impl Held {
    /// Why it is not as it should be, if it is not.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        let problem = self.problem.clone();
        problem.or_else(|| self.credentials.as_ref()?.trouble(SystemTime::now()))
    }
}

/// What every workload is now. Reading takes no lock.
#[derive(Debug, Default)]
pub struct Identities {
    held: ArcSwap<HashMap<WorkloadId, Arc<Held>>>,
}

impl Identities {
    /// What a new flow of the workload may use.
    ///
    /// # Errors
    /// Why there is nothing that peers would believe.
    pub fn current(&self, workload: WorkloadId) -> Result<Arc<Credentials>, NoIdentity> {
        let held = self.held(workload);
        let reason = || held.as_ref().and_then(|held| held.trouble()).unwrap_or(Trouble::Silent);
        match held.as_ref().and_then(|held| held.credentials.clone()) {
            None => Err(NoIdentity::Missing(reason())),
            Some(credentials) if credentials.svid.has_expired(SystemTime::now()) => {
                Err(NoIdentity::Expired(reason()))
            }
            Some(credentials) => Ok(credentials),
        }
    }

    #[must_use]
    pub fn held(&self, workload: WorkloadId) -> Option<Arc<Held>> {
        self.held.load().get(&workload).cloned()
    }

    /// Replaces everything. Flows that have taken old credentials keep them.
    pub fn publish(&self, held: HashMap<WorkloadId, Arc<Held>>) {
        self.held.store(Arc::new(held));
    }
}
