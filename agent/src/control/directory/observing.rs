//! What the controller is told of this node's pods: which of them are protected.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sheath_common::pod_uid::PodUid;
use tokio::sync::{mpsc, watch};

use crate::capture::SupervisorRequest;
use crate::credentials::Identities;
use crate::desired::Desired;
use crate::served;

/// How often it is looked while a pod is not protected yet, and otherwise.
const SOON: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_secs(1);
/// How long after a change a pod is looked at often.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long after the start nothing is said unless all are: that they are not protected yet says only that the agent is new.
const SETTLE: Duration = Duration::from_secs(5);

/// What an observation rests on.
pub struct Observing {
    pub desired: watch::Receiver<Arc<Desired>>,
    pub identities: Arc<Identities>,
    pub supervisor: mpsc::WeakSender<SupervisorRequest>,
}

impl Observing {
    /// Says which pods are protected, now and later, until the agent ends.
    pub async fn run(mut self, observed: watch::Sender<Option<HashSet<PodUid>>>) {
        let started = Instant::now();
        let mut changed = started;
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let seen = SupervisorRequest::ask(&self.supervisor, SupervisorRequest::Served).await;
            let Some(seen) = seen else {
                return;
            };
            let pods = served::pods(&desired);
            let protected: HashSet<_> = pods
                .iter()
                .filter(|(_, workload)| {
                    let of = seen.iter().find(|seen| seen.workload == workload.id);
                    self.identities.current(workload.id).is_ok()
                        && of.is_some_and(|seen| served::is_served(seen, None))
                })
                .map(|(uid, _)| *uid)
                .collect();
            let is_all = protected.len() == pods.len();
            let waits = !is_all && changed.elapsed() < PATIENCE;
            observed.send_if_modified(|known| {
                if known.is_none() && !is_all && started.elapsed() < SETTLE {
                    return false;
                }
                let is_new = known.as_ref() != Some(&protected);
                *known = Some(protected);
                is_new
            });
            tokio::select! {
                result = self.desired.changed() => match result {
                    Ok(()) => changed = Instant::now(),
                    Err(_) => return,
                },
                () = tokio::time::sleep(if waits { SOON } else { LOOK }) => {}
            }
        }
    }
}
