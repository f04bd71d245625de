//! Keeps capture true: finds cgroups, processes and namespaces as they come and go, repairs what somebody
//! removes, and tells what it sees.
//!
//! One task does all of it. [`Supervisor`] is when: kernel events wake it, and a timer makes sure that a lost event
//! delays things and breaks nothing. [`Reconciler`] is what: it asks an owner for each subject, one after another.
//! [`Enrolled`](enrolled::Enrolled) has the workloads, [`Namespaces`](namespaces::Namespaces) what is served,
//! [`Programs`](super::kernel::programs::Programs) what is attached, [`Rules`](rules::Rules) the policy in the kernel,
//! [`Listening`](listening::Listening) who listens where, and [`PortSteering`](port_steering::PortSteering) whose the
//! ports are.

mod attention;
mod conditions;
mod declared_ports;
mod dropped;
mod enrolled;
mod enrolled_cgroup;
mod enrolment;
mod event_log;
mod kubelet;
mod listening;
mod namespaces;
mod pod_decisions;
mod pods;
mod port_steering;
mod ports;
mod reconciler;
mod records;
mod refused;
mod report;
mod rules;
#[cfg(test)]
mod samples;
mod start;
mod status;
mod survey;
mod whereabouts;
mod workload;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sheath_common::event::Event;
use sheath_common::pod_uid::PodUid;
use tokio::sync::{mpsc, oneshot};
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::error::CaptureError;
use super::kernel::events::{Events, calls_for_reconcile};
use super::kernel::maps::Maps;
use super::kernel::prepared::Prepared;
use super::namespace::{FlowStarter, Listeners};
use super::pod_settings::PodSettings;
use super::processes::Processes;
use super::root::CaptureRoot;
use crate::directory::Directory;
use crate::sys::clock;
use crate::telemetry::Refusals;

use dropped::DroppedSockets;
use event_log::EventLog;
use reconciler::Reconciler;
use refused::refused;

pub use conditions::{ConditionsView, InForceView};
pub use reconciler::Reconfiguration;
pub use status::{
    NamespaceStatus, PodsStatus, ProgramStatus, Protection, ServedWorkload, StatusView,
    UnprotectedConnection, WorkloadStatus,
};
pub use survey::survey;

/// How often everything is reconciled without an event.
const RECONCILE: Duration = Duration::from_secs(1);
/// How often the programs are checked, and routes asked for again.
const CHECK: Duration = Duration::from_secs(3);
/// Pause after each batch of events, so that events cannot keep the agent busy.
const PAUSE: Duration = Duration::from_millis(5);

/// What is asked of the supervisor.
#[derive(Debug)]
pub enum SupervisorRequest {
    /// Reconciles, then answers.
    Status(oneshot::Sender<StatusView>),
    /// Says what is in force: less, and without a look at what there is of workloads.
    InForce(oneshot::Sender<InForceView>),
    /// Says what is wrong by the last look.
    Conditions(oneshot::Sender<ConditionsView>),
    /// Says what the last look has found of what is served, at once.
    Served(oneshot::Sender<Vec<ServedWorkload>>),
    /// The same, after another look at these pods alone.
    ServedNow(BTreeSet<PodUid>, oneshot::Sender<Vec<ServedWorkload>>),
    /// Another configuration, to be put in force while everything runs.
    Reconfigure(Box<Reconfiguration>, oneshot::Sender<Result<(), CaptureError>>),
    /// Ends, and leaves all that is in the kernel to a successor. What accepts connections goes on.
    HandOver(oneshot::Sender<Listeners>),
}

impl SupervisorRequest {
    /// Asks a supervisor that others keep running. `None` if it has ended.
    pub async fn ask<A>(
        supervisor: &mpsc::WeakSender<Self>,
        request: impl FnOnce(oneshot::Sender<A>) -> Self,
    ) -> Option<A> {
        let (sender, answer) = oneshot::channel();
        supervisor.upgrade()?.send(request(sender)).await.ok()?;
        answer.await.ok()
    }
}

/// The task that keeps capture true.
#[derive(Debug)]
pub struct Supervisor {
    /// The maps that are shared with the programs.
    maps: Arc<Maps>,
    /// What is done.
    reconciler: Reconciler,
    /// Events from the kernel.
    events: Events,
    /// Logs events, at a limited rate.
    event_log: EventLog,
    /// Sockets whose connections are to be ended.
    dropped: DroppedSockets,
    /// Connections that were refused.
    refusals: Arc<Refusals>,
}

impl Supervisor {
    /// Brings capture up: loads and attaches the programs or takes over those that are pinned, opens the
    /// namespaces of workloads that run, enrols them, and pins everything. Needs a tokio runtime.
    ///
    /// # Errors
    /// If any of it fails; then nothing that this start has made stays behind.
    pub fn start(
        prepared: Prepared,
        root: &CaptureRoot,
        pods: Option<PodSettings>,
        wanted: Reconfiguration,
        directory: &Directory,
        processes: Arc<Processes>,
        starter: Arc<dyn FlowStarter>,
    ) -> Result<Self, CaptureError> {
        let (attached, events, pinned) = start::attach(prepared, root, pods, &wanted, directory)?;
        let (maps, refusals) = (attached.maps.clone(), starter.refusals());
        let reconciler = Reconciler::bring_up(attached, wanted.workloads, processes, starter)?;
        pinned.keep()?;
        let (event_log, dropped) = (EventLog::default(), DroppedSockets::default());
        Ok(Self { maps, reconciler, events, event_log, dropped, refusals })
    }

    /// The maps.
    #[must_use]
    pub fn maps(&self) -> Arc<Maps> {
        self.maps.clone()
    }

    /// Has new connections come to this agent, and not to its predecessor any more.
    ///
    /// # Errors
    /// If the kernel refuses it. Some may come to this agent by then.
    pub fn take_connections(&self) -> Result<(), CaptureError> {
        self.reconciler.take_connections()
    }

    /// Works until `requests` closes.
    pub async fn run(mut self, mut requests: mpsc::Receiver<SupervisorRequest>) {
        let mut reconcile = interval(RECONCILE);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check = interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(SupervisorRequest::HandOver(answer)) => {
                        // If nobody waits for it any more, the agent ends.
                        let _ = answer.send(self.reconciler.hand_over());
                        return;
                    }
                    Some(request) => block_in_place(|| self.answer(request)),
                    None => break,
                },
                events = self.events.next() => match events {
                    Ok(events) => {
                        self.on_events(&events);
                        sleep(PAUSE).await;
                    }
                    Err(error) => {
                        tracing::error!(%error, "kernel events cannot be read; looking once a second instead");
                        sleep(RECONCILE).await;
                    }
                },
                _ = reconcile.tick() => {
                    self.event_log.begin_interval();
                    let policy = self.reconciler.policy();
                    self.refusals.retain(|workload| policy.workload_name(workload).is_some());
                    block_in_place(|| {
                        self.abort_dropped();
                        self.reconciler.reconcile_or_rest();
                    });
                }
                () = clock::reach(self.reconciler.look_again()) => {
                    block_in_place(|| self.reconciler.reconcile());
                }
                _ = check.tick() => block_in_place(|| self.reconciler.check()),
            }
        }
        self.reconciler.stop_accepting();
    }

    fn on_events(&mut self, events: &[Event]) {
        for event in events {
            self.event_log.log(event, self.reconciler.policy());
            self.dropped.note(event);
            if let Some(refused) = refused(event) {
                self.refusals.note(event.workload, &refused);
            }
        }
        if self.dropped.is_due() {
            block_in_place(|| self.abort_dropped());
        }
        if events.iter().any(calls_for_reconcile) {
            block_in_place(|| self.reconciler.reconcile_or_rest());
        }
    }

    /// Ends the connections whose packets a guard has dropped.
    fn abort_dropped(&mut self) {
        if let Some(cookies) = self.dropped.take() {
            self.reconciler.abort(&cookies);
        }
    }

    fn answer(&mut self, request: SupervisorRequest) {
        // The receiver may be gone.
        match request {
            SupervisorRequest::Status(answer) => {
                let _ = answer.send(self.reconciler.status(&self.refusals));
            }
            SupervisorRequest::InForce(answer) => {
                let _ = answer.send(self.reconciler.in_force());
            }
            SupervisorRequest::Conditions(answer) => {
                let _ = answer.send(self.reconciler.conditions(&self.refusals));
            }
            SupervisorRequest::Served(answer) => {
                let _ = answer.send(self.reconciler.served());
            }
            SupervisorRequest::ServedNow(pods, answer) => {
                self.reconciler.serve_pods(&pods);
                let _ = answer.send(self.reconciler.served());
            }
            SupervisorRequest::Reconfigure(change, answer) => {
                let _ = answer.send(self.reconciler.reconfigure(*change));
            }
            // The last request; the loop has it.
            SupervisorRequest::HandOver(_) => {}
        }
    }
}
