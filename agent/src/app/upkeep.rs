//! What an agent does on the side: giving memory back, and reading its configuration again when it is told to.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use crate::control::ControlRequest;
use crate::pipeline::Pipeline;
use crate::sys::heap;

/// How often memory that bursts of flows have left behind is given back.
const TIDY: Duration = Duration::from_secs(5);

/// Gives memory back that bursts of flows have left, and forgets workloads that are gone.
pub async fn tidy(pipeline: Arc<Pipeline>) {
    loop {
        tokio::time::sleep(TIDY).await;
        pipeline.quotas.trim();
        forget_workloads(&pipeline);
        heap::give_back();
        pipeline.workers.each(heap::give_back);
    }
}

/// Forgets what was counted for workloads that are gone.
fn forget_workloads(pipeline: &Pipeline) {
    let policy = pipeline.published.policy.load();
    let is_living = |workload| policy.workload(workload).is_some();
    pipeline.quotas.retain(is_living);
    pipeline.counters.retain(is_living);
}

/// Has the configuration read again at every SIGHUP.
pub async fn reload_on(mut hangup: Signal, control: mpsc::WeakSender<ControlRequest>) {
    while hangup.recv().await.is_some() {
        let (answer, reloaded) = oneshot::channel();
        let Some(control) = control.upgrade() else {
            return;
        };
        if control.send(ControlRequest::Reload(answer)).await.is_err() {
            return;
        }
        drop(control);
        if let Ok(Err(reason)) = reloaded.await {
            tracing::error!(%reason, "configuration not reloaded; the previous one stays in force");
        }
    }
}
