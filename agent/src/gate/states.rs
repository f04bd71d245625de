//! A doorkeeper that answers from what others know about pods, and waits for them to know it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sheath_common::pod_uid::PodUid;
use tokio::sync::watch;

use super::MAX_SANDBOXES;
use super::keeper::{Admission, Doorkeeper};
use super::reason::NotAdmitted;
use super::sandbox::{Sandbox, SandboxId};
use super::settings::GateSettings;
use crate::metrics::{Bounds, Histogram, Registry, RegistryError};

/// A runtime's own limit is 2 s, and the CNI plugin's 5 s.
const WAITED: Bounds = Bounds::new(&[
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(1600),
    Duration::from_millis(4000),
]);

/// What is known about a pod. Of one that nobody has said anything about, nothing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodState {
    /// It is not to be protected.
    Plain,
    /// It is to be protected, and something is missing yet: a [reason](NotAdmitted) that may pass.
    Preparing(NotAdmitted),
    /// The kernel knows it, its SVID is held, and the network namespaces of these sandboxes are served. A pod whose sandbox
    /// dies gets another one, with another namespace: what was good for the first says nothing about the second.
    Ready(BTreeSet<SandboxId>),
    /// It was to be protected, and cannot be.
    Refused(NotAdmitted),
}

/// The sandboxes that the runtime has, or asks about. Who prepares pods takes their network namespaces from here.
pub type Sandboxes = HashMap<SandboxId, Arc<Sandbox>>;

/// The states of a node's pods, and their sandboxes: the one is filled in by whoever knows about pods, the other by the gate,
/// and each can be watched.
#[derive(Debug)]
pub struct PodStates {
    states: watch::Sender<HashMap<PodUid, PodState>>,
    sandboxes: watch::Sender<Sandboxes>,
    host_socket_handlers: BTreeSet<String>,
    hold_host_network: bool,
    waited: Histogram,
}

/// What a state means for a sandbox.
enum Verdict {
    Now(Result<(), NotAdmitted>),
    /// It may change; if it does not until the deadline, this.
    Later(Result<(), NotAdmitted>),
}

impl PodStates {
    /// Of no pods yet.
    #[must_use]
    pub fn new(settings: &GateSettings) -> Self {
        Self {
            states: watch::Sender::default(),
            sandboxes: watch::Sender::default(),
            host_socket_handlers: settings.host_socket_handlers.iter().cloned().collect(),
            hold_host_network: settings.hold_host_network,
            waited: Histogram::new(WAITED),
        }
    }

    /// Registers how long sandboxes wait.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) -> Result<(), RegistryError> {
        registry.register(
            "gate_wait_seconds",
            "How long sandboxes of pods have waited to be let start, or to be refused.",
            self,
            |states| &states.waited,
        )
    }

    /// Says what is known of a pod from now on.
    pub fn set(&self, uid: PodUid, state: PodState) {
        self.states.send_if_modified(|states| {
            let is_new = states.get(&uid) != Some(&state);
            states.insert(uid, state);
            is_new
        });
    }

    /// A pod that is gone: nothing is known of it any more.
    pub fn forget(&self, uid: &PodUid) {
        self.states.send_if_modified(|states| states.remove(uid).is_some());
    }

    /// What the gate has learnt from the runtime.
    #[must_use]
    pub fn sandboxes(&self) -> watch::Receiver<Sandboxes> {
        self.sandboxes.subscribe()
    }

    fn judge(&self, sandbox: &Sandbox, state: Option<&PodState>) -> Verdict {
        let handler = &sandbox.runtime_handler;
        match state {
            Some(PodState::Plain) => Verdict::Now(Ok(())),
            Some(PodState::Refused(why)) => Verdict::Now(Err(why.clone())),
            Some(PodState::Preparing(_) | PodState::Ready(_))
                if !self.host_socket_handlers.contains(handler) =>
            {
                Verdict::Now(Err(NotAdmitted::Unsupported(handler.clone())))
            }
            Some(PodState::Ready(served)) if sandbox.is_empty || served.contains(&sandbox.id) => {
                Verdict::Now(Ok(()))
            }
            Some(PodState::Ready(_)) => {
                let why = "the agent has not come to it yet".to_owned();
                Verdict::Later(Err(NotAdmitted::NamespaceNotServed(why)))
            }
            Some(PodState::Preparing(why)) => Verdict::Later(Err(why.clone())),
            None if sandbox.is_host_network() && !self.hold_host_network => Verdict::Later(Ok(())),
            None => Verdict::Later(Err(NotAdmitted::Undecided)),
        }
    }

    async fn decide(&self, sandbox: Sandbox, deadline: Instant) -> Result<(), NotAdmitted> {
        let sandbox = Arc::new(sandbox);
        let shown = self.show(&sandbox)?;
        let mut states = self.states.subscribe();
        let deadline = tokio::time::Instant::from_std(deadline);
        let verdict = loop {
            let verdict = self.judge(&sandbox, states.borrow_and_update().get(&sandbox.uid));
            let otherwise = match verdict {
                Verdict::Now(verdict) => break verdict,
                Verdict::Later(otherwise) => otherwise,
            };
            // The sender is `self`: it cannot be gone.
            if tokio::time::timeout_at(deadline, states.changed()).await.is_err() {
                break otherwise;
            }
        };
        if verdict.is_ok() {
            shown.keep();
        }
        verdict
    }

    fn show(&self, sandbox: &Arc<Sandbox>) -> Result<Shown<'_>, NotAdmitted> {
        let has_room = self.sandboxes.send_if_modified(|sandboxes| {
            let has_room = sandboxes.len() < MAX_SANDBOXES || sandboxes.contains_key(&sandbox.id);
            if has_room {
                sandboxes.insert(sandbox.id.clone(), sandbox.clone());
            }
            has_room
        });
        if !has_room {
            return Err(NotAdmitted::Overloaded);
        }
        Ok(Shown { states: self, sandbox: Some(sandbox.clone()) })
    }
}

/// A sandbox that is among those that are shown, until it is not admitted.
struct Shown<'s> {
    states: &'s PodStates,
    sandbox: Option<Arc<Sandbox>>,
}

impl Shown<'_> {
    fn keep(mut self) {
        self.sandbox = None;
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let Some(sandbox) = &self.sandbox else {
            return;
        };
        self.states.sandboxes.send_if_modified(|sandboxes| {
            // Somebody else may have asked about it meanwhile.
            let is_ours =
                sandboxes.get(&sandbox.id).is_some_and(|shown| Arc::ptr_eq(shown, sandbox));
            is_ours && sandboxes.remove(&sandbox.id).is_some()
        });
    }
}

impl Doorkeeper for PodStates {
    fn admit(&self, sandbox: Sandbox, deadline: Instant) -> Admission<'_> {
        let asked = Instant::now();
        Box::pin(async move {
            let decided = self.decide(sandbox, deadline).await;
            self.waited.observe(asked.elapsed());
            decided
        })
    }

    fn present(&self, present: Vec<Sandbox>) {
        let present = present.into_iter().take(MAX_SANDBOXES);
        let present =
            present.map(|sandbox| (sandbox.id.clone(), Arc::new(sandbox))).collect::<Sandboxes>();
        self.sandboxes.send_replace(present);
    }

    fn gone(&self, sandbox: &SandboxId) {
        self.sandboxes.send_if_modified(|sandboxes| sandboxes.remove(sandbox).is_some());
    }
}

#[cfg(test)]
mod tests;
