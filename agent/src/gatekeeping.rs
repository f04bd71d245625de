//! Tells the gate what is known about the pods whose sandboxes the runtime has or asks about: from what is wanted, who has an
//! identity, and what capture sees.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sheath_common::pod_uid::PodUid;
use tokio::sync::{mpsc, watch};

use crate::capture::{ServedWorkload, SupervisorRequest};
use crate::credentials::Identities;
use crate::desired::{Desired, Workload};
use crate::gate::{NotAdmitted, PodState, PodStates, Sandbox, Sandboxes};
use crate::served;
use crate::sys::clock;

/// How often capture is asked while a sandbox waits for it: as long as a runtime may wait for the answer, and afterwards.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_LATER: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(3);

/// What the gate's answers rest on.
pub struct Gatekeeping {
    pub states: Arc<PodStates>,
    pub desired: watch::Receiver<Arc<Desired>>,
    pub identities: Arc<Identities>,
    pub supervisor: mpsc::WeakSender<SupervisorRequest>,
}

impl Gatekeeping {
    /// Works until the agent ends.
    pub async fn run(mut self) {
        let mut sandboxes = self.states.sandboxes();
        let mut told = BTreeMap::new();
        let mut changed = Instant::now();
        loop {
            let known = sandboxes.borrow_and_update().clone();
            let desired = self.desired.borrow_and_update().clone();
            let waits = self.tell(&known, &desired, &mut told).await;
            let pause = if changed.elapsed() < SOON { LOOK } else { LOOK_LATER };
            let look = waits.then(|| Instant::now() + pause);
            let has_ended = tokio::select! {
                result = sandboxes.changed() => { changed = Instant::now(); result.is_err() }
                result = self.desired.changed() => { changed = Instant::now(); result.is_err() }
                () = clock::reach(look) => false,
            };
            if has_ended {
                return;
            }
        }
    }

    /// Says what is known. Returns true if a sandbox waits for what capture or a source of identities has not done yet.
    async fn tell(
        &self,
        sandboxes: &Sandboxes,
        desired: &Desired,
        told: &mut BTreeMap<PodUid, PodState>,
    ) -> bool {
        let pods = by_pod(sandboxes);
        let workloads = served::pods(desired);
        let plain = desired.pods.iter().flat_map(|pods| &pods.plain);
        let known: BTreeSet<PodUid> =
            pods.keys().chain(workloads.keys()).chain(plain).copied().collect();
        let sandboxes_of = |uid| pods.get(&uid).map_or(&[][..], Vec::as_slice);
        for uid in known.iter().filter(|uid| !told.contains_key(uid)) {
            // What is known without capture, which may take a while.
            if let Some(state) = self.state(*uid, sandboxes_of(*uid), desired, &workloads, None) {
                self.states.set(*uid, state);
            }
        }
        let waiting: BTreeSet<PodUid> = pods
            .iter()
            .filter(|(uid, sandboxes)| {
                workloads.contains_key(uid) && !is_ready(told.get(uid), sandboxes)
            })
            .map(|(uid, _)| *uid)
            .collect();
        // For nobody else capture is asked, and it looks at those alone that have not been served: on a node with many pods,
        // looking at all of them takes longer than a sandbox may wait.
        let seen = match pods.keys().any(|uid| workloads.contains_key(uid)) {
            true => {
                let request = |answer| SupervisorRequest::ServedNow(waiting, answer);
                SupervisorRequest::ask(&self.supervisor, request).await
            }
            false => None,
        };
        let mut waits = false;
        let mut now_told = BTreeMap::new();
        // Those without a sandbox as well: one that was refused comes back, and is to find what is known of it.
        for uid in known {
            let sandboxes = sandboxes_of(uid);
            let Some(state) = self.state(uid, sandboxes, desired, &workloads, seen.as_deref())
            else {
                continue;
            };
            waits |= match &state {
                PodState::Preparing(_) => !sandboxes.is_empty(),
                PodState::Ready(served) => served.len() < sandboxes.len(),
                PodState::Plain | PodState::Refused(_) => false,
            };
            self.states.set(uid, state.clone());
            now_told.insert(uid, state);
        }
        for gone in told.keys().filter(|uid| !now_told.contains_key(uid)) {
            self.states.forget(gone);
        }
        *told = now_told;
        waits
    }

    /// What is known of a pod, if anything is.
    fn state(
        &self,
        uid: PodUid,
        sandboxes: &[&Sandbox],
        desired: &Desired,
        workloads: &HashMap<PodUid, &Workload>,
        seen: Option<&[ServedWorkload]>,
    ) -> Option<PodState> {
        let Some(workload) = workloads.get(&uid) else {
            let is_plain = desired.pods.as_ref().is_some_and(|pods| pods.plain.contains(&uid));
            return is_plain.then_some(PodState::Plain);
        };
        if let Err(error) = self.identities.current(workload.id) {
            return Some(PodState::Preparing(NotAdmitted::NoIdentity(error.to_string())));
        }
        let seen = seen.and_then(|all| all.iter().find(|seen| seen.workload == workload.id));
        let served = sandboxes.iter().filter(|sandbox| is_served(sandbox, seen));
        Some(PodState::Ready(served.map(|sandbox| sandbox.id.clone()).collect()))
    }
}

/// True if all sandboxes of a pod were last told to be served.
fn is_ready(told: Option<&PodState>, sandboxes: &[&Sandbox]) -> bool {
    match told {
        Some(PodState::Ready(served)) => sandboxes.iter().all(|it| served.contains(&it.id)),
        _ => false,
    }
}

/// True if what the sandbox's processes connect to and listen on is the agent's business already.
fn is_served(sandbox: &Sandbox, seen: Option<&ServedWorkload>) -> bool {
    let Some(seen) = seen else {
        return false;
    };
    let own = sandbox.namespace.as_ref().map(|namespace| namespace.inode());
    match sandbox.is_host_network() {
        true => seen.has_cgroup,
        false => served::is_served(seen, own),
    }
}

fn by_pod(sandboxes: &Sandboxes) -> HashMap<PodUid, Vec<&Sandbox>> {
    let mut pods: HashMap<_, Vec<_>> = HashMap::new();
    for sandbox in sandboxes.values() {
        pods.entry(sandbox.uid).or_default().push(&**sandbox);
    }
    pods
}
