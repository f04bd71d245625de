//! What the identity stage hands to the tls stage: a workload's identity, ready for use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use sheath_common::workload::WorkloadId;

use super::Svid;
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
    /// Why the latest attempt to get something newer failed, if it did.
    pub problem: Option<String>,
    pub next_renewal: Option<SystemTime>,
}

impl Credentials {
    /// Why peers do not believe it at this time, if that is known.
    fn trouble(&self, now: SystemTime) -> Option<String> {
        if self.svid.has_expired(now) {
            return Some(
                "the certificate has expired, and the source has given no other".to_owned(),
            );
        }
        let not_before = rfc3339(self.svid.facts.not_before);
        self.svid.is_not_valid_yet(now).then(|| {
            format!("the certificate is not valid yet, but from {not_before} on: the clock was ahead when it was made, or is behind now")
        })
    }
}

impl Held {
    /// Why it is not as it should be, if it is not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let problem = self.problem.clone();
        problem.or_else(|| self.credentials.as_ref()?.trouble(SystemTime::now()))
    }
}

/// Why a workload cannot speak for itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoIdentity {
    #[error("the workload has no identity: {0}")]
    Missing(String),
    #[error("the workload cannot prove its identity any more: {0}")]
    Expired(String),
}

/// What every workload is now. Reading takes no lock.
#[derive(Debug, Default)]
pub struct Identities {
    held: ArcSwap<HashMap<WorkloadId, Arc<Held>>>,
}

impl Identities {
    /// What a new flow of the workload may use.
    pub fn current(&self, workload: WorkloadId) -> Result<Arc<Credentials>, NoIdentity> {
        let held = self.held(workload);
        let reason = || {
            let problem = held.as_ref().and_then(|held| held.trouble());
            problem.unwrap_or_else(|| "its source has not said anything yet".to_owned())
        };
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
