//! Publishing: from the desired state, materials and identities to snapshots for the data path and rules for capture.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sheath_common::workload::WorkloadId;
use tokio::sync::mpsc;

use super::reload::{NotApplied, apply};
use super::sources::Opened;
use super::{Control, trust};
use crate::capture::SupervisorRequest;
use crate::credentials::{Credentials, IdentityProblem, IdentityState};
use crate::desired::Desired;
use crate::materials::Materials;
use crate::policy::Policy;
use crate::tls::TlsConfigs;
use crate::wire::words;

/// Pause before a change that capture has refused is tried again.
const STEER_AGAIN: Duration = Duration::from_secs(5);

impl Control {
    /// Applies what a discovery has found. Returns when to retry, if capture refuses it.
    pub(super) async fn apply_found(
        &mut self,
        supervisor: &mpsc::WeakSender<SupervisorRequest>,
    ) -> Option<Instant> {
        self.merge();
        // It takes a while for many workloads, and others have to be answered meanwhile.
        tokio::task::block_in_place(|| self.publish());
        self.steer(supervisor).await
    }

    /// Merges the desired state, and follows the materials and sources that it needs.
    pub(super) fn merge(&mut self) {
        let mut merged = self.discoveries.merged(&self.configured);
        let desired = Arc::make_mut(&mut merged.desired);
        if let Err(error) = self.numbers.give(desired) {
            tracing::error!(%error, "workloads that a discovery has found are refused");
            self.numbers.give_known(desired);
        }
        self.discoveries.announce(&merged);
        self.desired = merged.desired;
        tokio::task::block_in_place(|| self.materials.follow(&self.desired));
        self.watch_materials();
        self.sources.follow(&self.desired.workloads, Opened::new());
    }

    /// Has capture enforce the current policy. Returns when to retry, if it refuses.
    pub(super) async fn steer(
        &self,
        supervisor: &mpsc::WeakSender<SupervisorRequest>,
    ) -> Option<Instant> {
        let policy = self.published.policy.load_full();
        let error = apply(supervisor, &self.desired, policy).await.err()?;
        // The agent ends, or has handed over.
        if matches!(error, NotApplied::Ended) {
            return None;
        }
        tracing::error!(%error, "capture refuses what a discovery has found; it is tried again");
        Some(Instant::now() + STEER_AGAIN)
    }

    /// Publishes everything, and has all live sessions judged again.
    pub(super) fn publish(&mut self) {
        let policy = self.policy(&self.desired, &self.materials);
        self.published.policy.store(Arc::new(policy));
        let held = self.sources.workloads().map(|id| (id, Arc::new(self.hold(id)))).collect();
        self.published.identities.publish(held);
        tokio::task::block_in_place(|| self.published.sessions.review(|_| true));
    }

    /// The policy for what is desired, by the directory in force.
    pub(super) fn policy(&self, desired: &Desired, materials: &Materials) -> Policy {
        Policy::new(desired, materials).with_directory(self.published.directory.clone())
    }

    /// Publishes the identity of one workload, and has its live sessions judged again if the identity `is_new`.
    pub(super) fn publish_one(&mut self, workload: WorkloadId, is_new: bool) {
        let identities = &self.published.identities;
        let mut held: HashMap<_, _> =
            self.sources.workloads().filter_map(|id| Some((id, identities.held(id)?))).collect();
        held.insert(workload, Arc::new(self.hold(workload)));
        identities.publish(held);
        if is_new {
            let sessions = &self.published.sessions;
            tokio::task::block_in_place(|| sessions.review(|facts| facts.workload == workload));
        }
    }

    /// The identity of a workload as it is now, ready for use.
    fn hold(&self, workload: WorkloadId) -> IdentityState {
        let Some(followed) = self.sources.get(workload) else {
            return IdentityState {
                credentials: None,
                source: "",
                problem: None,
                next_renewal: None,
            };
        };
        let credentials = followed.snapshot.as_ref().map(|snapshot| {
            let policy = self.published.policy.load();
            let inbound = policy.inbound(workload).cloned().unwrap_or_default();
            let further = &self.desired.trust_domains;
            let trust = trust::complete(&snapshot.trust, further, &self.materials, &self.verified);
            let key = snapshot.svid.key.clone();
            TlsConfigs::new(self.provider.clone(), key, trust, &inbound)
                .map(|tls| Arc::new(Credentials { svid: snapshot.svid.clone(), tls }))
                .map_err(|error| IdentityProblem::Tls(words::handshake(&error)))
        });
        let (credentials, trouble) = match credentials.transpose() {
            Ok(credentials) => (credentials, None),
            Err(trouble) => (None, Some(trouble)),
        };
        IdentityState {
            credentials,
            source: followed.kind(),
            problem: trouble.or_else(|| followed.problem.clone().map(IdentityProblem::Source)),
            next_renewal: followed.snapshot.as_ref().and_then(|snapshot| snapshot.next_renewal),
        }
    }
}
