//! Reloading the configuration of a running agent.

use std::error::Error;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{Control, Settings};
use crate::capture::{CaptureError, IdError, Reconfiguration, SupervisorRequest};
use crate::desired::Desired;
use crate::follow::Problem;
use crate::policy::Policy;

/// Reads the configuration again.
pub type Reread = Box<dyn Fn() -> Result<Settings, Unreadable> + Send + Sync>;

/// Why the configuration cannot be read, or not be changed over to.
pub type Unreadable = Box<dyn Error + Send + Sync>;

/// Why a reload was refused. The previous configuration stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{0}")]
    Configuration(Unreadable),
    /// A source cannot be opened.
    #[error("{0}")]
    Source(Problem),
    /// A workload gets no number.
    #[error(transparent)]
    Ids(#[from] IdError),
    #[error(transparent)]
    Capture(#[from] NotApplied),
}

/// Why capture does not enforce a change.
#[derive(Debug, thiserror::Error)]
pub enum NotApplied {
    #[error(transparent)]
    Refused(#[from] CaptureError),
    #[error("capture has ended")]
    Ended,
}

impl Control {
    /// Reads the configuration again and applies it as a whole, or not at all: every step that may fail comes before the
    /// first change that cannot be undone.
    pub(super) async fn reload(
        &mut self,
        supervisor: &mpsc::WeakSender<SupervisorRequest>,
    ) -> Result<(), ReloadError> {
        let new = tokio::task::block_in_place(|| (self.reread)());
        let mut new = new.map_err(ReloadError::Configuration)?;
        self.numbers.give(&mut new.desired)?;
        let opened = self.sources.open(&new.desired.workloads).map_err(ReloadError::Source)?;
        let mut merged = self.discoveries.merged(&new.desired);
        self.numbers.give(Arc::make_mut(&mut merged.desired))?;
        let desired = merged.desired.clone();
        let mut materials = self.materials.clone();
        tokio::task::block_in_place(|| materials.follow(&desired));
        let policy = Arc::new(self.policy(&desired, &materials));
        // The policy first: capture must not hand us flows that the policy does not know. Live sessions are judged by it
        // later.
        let before = self.published.policy.swap(policy.clone());
        if let Err(error) = apply(supervisor, &desired, policy).await {
            self.published.policy.store(before);
            return Err(error.into());
        }
        self.materials = materials;
        self.watch_materials();
        self.discoveries.announce(&merged);
        self.discoveries.follow(&new.discoveries);
        self.sources.follow(&desired.workloads, opened);
        self.published.sessions.set_expired_peer(new.expired_peer);
        self.configured = new.desired;
        self.desired = desired;
        self.publish();
        tracing::info!("configuration reloaded");
        self.configured.log();
        Ok(())
    }
}

/// Has capture enforce what is desired of workloads and pods, and policy.
///
/// # Errors
/// If capture refuses, or has ended. Then nothing has changed.
pub async fn apply(
    supervisor: &mpsc::WeakSender<SupervisorRequest>,
    desired: &Desired,
    policy: Arc<Policy>,
) -> Result<(), NotApplied> {
    let supervisor = supervisor.upgrade().ok_or(NotApplied::Ended)?;
    let (answer, applied) = oneshot::channel();
    let (workloads, pods) = (desired.workloads.clone(), desired.pods.clone());
    let change = Reconfiguration { workloads, pods, policy };
    supervisor
        .send(SupervisorRequest::Reconfigure(Box::new(change), answer))
        .await
        .map_err(|_| NotApplied::Ended)?;
    Ok(applied.await.map_err(|_| NotApplied::Ended)??)
}
