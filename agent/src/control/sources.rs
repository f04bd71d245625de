//! Follows one source of identities for each workload.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use sheath_common::workload::WorkloadId;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::capture::{PodRoot, Processes, is_member};
use crate::desired::Workload;
use crate::follow::Problem;
use crate::identity::{Membership, Shared, Snapshot, Source, Update, Updates, WorkloadRef};

/// Pause after a source has panicked.
const AFTER_BREAKDOWN: Duration = Duration::from_secs(10);

/// A message of a source: the workload, the generation of the follower, and the update.
pub type SourceUpdate = (WorkloadRef, u64, Update);

/// A source has panicked.
#[derive(Debug, thiserror::Error)]
#[error("its source broke down; please report this")]
struct BrokenDown;

/// All sources that are followed.
#[derive(Debug)]
pub struct Sources {
    shared: Shared,
    processes: Arc<Processes>,
    /// What pods are below.
    pod_root: Option<PodRoot>,
    followed: HashMap<WorkloadId, FollowedSource>,
    generation: u64,
    updates: (mpsc::Sender<SourceUpdate>, mpsc::Receiver<SourceUpdate>),
}

/// Sources that were opened and are not yet followed.
pub type Opened = HashMap<WorkloadId, Arc<dyn Source>>;

/// A workload whose source is followed.
#[derive(Debug)]
pub struct FollowedSource {
    workload: Arc<Workload>,
    generation: u64,
    /// Aborted when this is dropped. `None` if the source could not be opened.
    _task: Option<AbortOnDropHandle<()>>,
    pub snapshot: Option<Snapshot>,
    pub problem: Option<Problem>,
    /// True after its first message.
    heard: bool,
    /// The source itself gives none.
    is_refused: bool,
}

impl FollowedSource {
    /// Kind of the source, for status.
    pub fn kind(&self) -> &'static str {
        self.workload.source.kind()
    }

    /// True if the source that is followed is the one that `workload` asks for.
    fn is_of(&self, workload: &Workload) -> bool {
        let known = &self.workload;
        *known.source == *workload.source
            && known.spiffe_id == workload.spiffe_id
            && known.cgroup == workload.cgroup
    }
}

impl Sources {
    pub fn new(
        provider: Arc<CryptoProvider>,
        processes: Arc<Processes>,
        pod_root: Option<PodRoot>,
    ) -> Self {
        Self {
            shared: Shared::new(provider),
            processes,
            pod_root,
            followed: HashMap::new(),
            generation: 0,
            updates: mpsc::channel(64),
        }
    }

    /// Opens the sources of workloads, except for those that are followed already. Changes nothing else.
    ///
    /// # Errors
    /// If one of them cannot be opened.
    pub fn open(&mut self, workloads: &[Arc<Workload>]) -> Result<Opened, Problem> {
        let mut opened = Opened::new();
        for workload in workloads {
            let followed = self.followed.get(&workload.id);
            if !followed.is_some_and(|followed| followed.is_of(workload)) {
                opened.insert(workload.id, workload.source.open(&mut self.shared)?);
            }
        }
        Ok(opened)
    }

    /// Follows the source of each workload. An unchanged one goes on undisturbed.
    pub fn follow(&mut self, workloads: &[Arc<Workload>], mut opened: Opened) {
        let mut before = std::mem::take(&mut self.followed);
        for workload in workloads {
            let followed = match before.remove(&workload.id) {
                Some(followed) if followed.is_of(workload) => {
                    FollowedSource { workload: workload.clone(), ..followed }
                }
                old => {
                    // Keep the old SVID until the new source delivers, if the SPIFFE ID is unchanged.
                    let is_still = |snapshot: &Snapshot| {
                        workload.spiffe_id.is_none() || snapshot.svid.id == workload.spiffe_id
                    };
                    let snapshot = old.and_then(|old| old.snapshot).filter(is_still);
                    let source = match opened.remove(&workload.id) {
                        Some(source) => Ok(source),
                        None => workload.source.open(&mut self.shared),
                    };
                    FollowedSource { snapshot, ..self.begin(workload, source) }
                }
            };
            self.followed.insert(workload.id, followed);
        }
    }

    fn begin(
        &mut self,
        workload: &Arc<Workload>,
        source: Result<Arc<dyn Source>, Problem>,
    ) -> FollowedSource {
        self.generation += 1;
        let (task, problem) = match source {
            Ok(source) => (Some(self.spawn(workload, source)), None),
            Err(problem) => {
                tracing::error!(workload = workload.name, %problem, "no source of its identity");
                (None, Some(problem))
            }
        };
        FollowedSource {
            workload: workload.clone(),
            generation: self.generation,
            heard: task.is_none(),
            is_refused: false,
            _task: task,
            snapshot: None,
            problem,
        }
    }

    fn spawn(&self, workload: &Arc<Workload>, source: Arc<dyn Source>) -> AbortOnDropHandle<()> {
        let (member, pod_root) = (workload.clone(), self.pod_root.clone());
        let is_member = move |pid| is_member(&member, pod_root.as_ref(), pid);
        let reference = WorkloadRef {
            id: workload.id,
            name: workload.name.clone(),
            spiffe_id: workload.spiffe_id.clone(),
            processes: self.processes.subscribe(workload.id),
            membership: Membership(Arc::new(is_member)),
        };
        let updates = Updates::new(self.updates.0.clone(), reference, self.generation);
        AbortOnDropHandle::new(tokio::spawn(keep_following(source, updates)))
    }

    /// Waits for the next message of a source.
    pub async fn next(&mut self) -> SourceUpdate {
        match self.updates.1.recv().await {
            Some(update) => update,
            // Cannot happen: `self` holds a sender.
            None => std::future::pending().await,
        }
    }

    /// True if every source has sent a message.
    pub fn all_heard(&self) -> bool {
        self.followed.values().all(|followed| followed.heard)
    }

    /// Names of workloads that have no identity, though their sources do not refuse one. Only those whose keys are `among` these.
    pub fn lacking<'s>(&'s self, among: &'s BTreeSet<String>) -> impl Iterator<Item = &'s str> {
        let lacks = |source: &&FollowedSource| source.snapshot.is_none() && !source.is_refused;
        let sources = self.followed.values().filter(lacks);
        let wanted = sources.filter(|source| among.contains(&*source.workload.key()));
        wanted.map(|source| source.workload.name.as_str())
    }

    /// Handles a message, unless its source is no longer followed. Returns whether live sessions must be judged again.
    pub fn take(&mut self, (workload, generation, update): SourceUpdate) -> Option<bool> {
        let followed = self.followed.get_mut(&workload.id)?;
        if followed.generation != generation {
            return None;
        }
        followed.heard = true;
        let name = &workload.name;
        followed.is_refused = matches!(update, Update::Refused(_) | Update::Withdrawn(_));
        match update {
            Update::Snapshot(snapshot) => {
                tracing::debug!(workload = name, serial = snapshot.svid.facts.serial, "identity");
                followed.snapshot = Some(snapshot);
                followed.problem = None;
                Some(true)
            }
            Update::Waiting(reason) | Update::Refused(reason) => {
                tracing::info!(workload = name, %reason, "no identity yet");
                followed.problem = Some(reason);
                Some(false)
            }
            Update::Failed(reason) => {
                let kept = followed.snapshot.is_some();
                tracing::error!(
                    workload = name,
                    %reason,
                    kept,
                    "identity not refreshed; what was there stays until it expires"
                );
                followed.problem = Some(reason);
                Some(false)
            }
            Update::Withdrawn(reason) => {
                tracing::error!(workload = name, %reason, "identity withdrawn");
                followed.snapshot = None;
                followed.problem = Some(reason);
                Some(true)
            }
        }
    }

    /// The workloads whose sources are followed.
    pub fn workloads(&self) -> impl Iterator<Item = WorkloadId> {
        self.followed.keys().copied()
    }

    pub fn get(&self, workload: WorkloadId) -> Option<&FollowedSource> {
        self.followed.get(&workload)
    }
}

/// Follows a source, and starts it again if it panics.
async fn keep_following(source: Arc<dyn Source>, updates: Updates) {
    loop {
        let following = tokio::spawn(source.clone().follow(updates.clone()));
        match AbortOnDropHandle::new(following).await {
            Err(error) if error.is_panic() => {
                if updates.send(Update::Failed(BrokenDown.into())).await.is_err() {
                    return;
                }
                tokio::time::sleep(AFTER_BREAKDOWN).await;
            }
            _ => return,
        }
    }
}
