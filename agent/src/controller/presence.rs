//! Whether the pod that a token was made for is still there. The API server says so of tokens too, but what it has said is remembered,
//! and streams last longer: a token of a pod that is gone is of no use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sheath_common::pod_uid::PodUid;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Caller;
use super::pods::{KnownPod, Pods};
use crate::kubernetes::{Lifetime, WatchProblem};

/// How long behind its grace a pod is still believed to end: clocks differ.
const LENIENCE: Duration = Duration::from_secs(30);
/// How long an answer about a pod is good which the watch does not know.
const FRESH: Duration = Duration::from_secs(10);
/// Answers that are remembered.
const MOST_KNOWN: usize = 4096;
/// Questions at a time.
const MOST_ASKED: usize = 8;
/// How often it is looked whether whoever follows something is still there.
const LOOK: Duration = Duration::from_secs(10);

/// Why a caller is taken for gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    #[error("the agent's pod {0} is not on this node any more, or never was")]
    Gone(PodUid),
    #[error("the pod {0} is no agent's")]
    Other(PodUid),
    #[error("whether the agent's pod is there cannot be asked: {0}")]
    Unanswered(#[from] WatchProblem),
}

/// What the API server has said of a pod, and until when that is good.
type Answer = (Instant, Result<(), Absent>);

/// Knows which agents there are.
pub struct Presence {
    pods: Arc<Pods>,
    /// Namespace and service account of agents.
    account: (String, String),
    /// Of pods that the watch does not know: whether they are there, until when.
    asked: Mutex<HashMap<PodUid, Answer>>,
    turns: Semaphore,
}

impl Presence {
    /// `account` is the service account of agents, `<namespace>/<name>`.
    #[must_use]
    pub fn new(pods: Arc<Pods>, account: &str) -> Self {
        let (namespace, name) = account.split_once('/').unwrap_or_default();
        Self {
            pods,
            account: (namespace.to_owned(), name.to_owned()),
            asked: Mutex::default(),
            turns: Semaphore::new(MOST_ASKED),
        }
    }

    /// Whether a caller's pod is there, as far as is known.
    ///
    /// # Errors
    /// If it is not, or nobody can say.
    pub async fn check(&self, caller: &Caller) -> Result<(), Absent> {
        match self.pods.get(caller.pod) {
            Some(pod) => self.judge(&pod, caller),
            // It may be too new.
            None => self.ask(caller).await,
        }
    }

    /// Waits until a caller's pod is gone.
    pub async fn lost(&self, caller: &Caller) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(Absent::Gone(_) | Absent::Other(_)) = self.check(caller).await {
                tracing::info!(node = %caller.node, pod = %caller.pod, "an agent's pod is gone, and so are its streams");
                return;
            }
        }
    }

    fn judge(&self, pod: &KnownPod, caller: &Caller) -> Result<(), Absent> {
        let (namespace, account) = &self.account;
        judge(pod, caller, (namespace, account), SystemTime::now())
    }

    async fn ask(&self, caller: &Caller) -> Result<(), Absent> {
        if let Some(known) = self.known(caller.pod) {
            return known;
        }
        let gone = Absent::Gone(caller.pod);
        let Ok(_turn) = self.turns.acquire().await else {
            return Err(gone);
        };
        // Another call may have asked meanwhile.
        if let Some(known) = self.known(caller.pod) {
            return known;
        }
        let found = self.pods.ask(&caller.node, caller.pod).await?;
        let answer = found.map_or(Err(gone), |pod| self.judge(&pod, caller));
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= MOST_KNOWN {
            asked.clear();
        }
        asked.insert(caller.pod, (Instant::now() + FRESH, answer.clone()));
        answer
    }

    fn known(&self, pod: PodUid) -> Option<Result<(), Absent>> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, answer) = asked.get(&pod)?;
        (Instant::now() < *until).then(|| answer.clone())
    }
}

/// Whether a pod is the caller's, and there.
fn judge(
    pod: &KnownPod,
    caller: &Caller,
    (namespace, account): (&str, &str),
    now: SystemTime,
) -> Result<(), Absent> {
    if *pod.namespace != *namespace || *pod.service_account != *account || pod.is_mirror {
        return Err(Absent::Other(caller.pod));
    }
    let is_over = pod.ends.is_some_and(|ends| ends + LENIENCE < now);
    match pod.node != caller.node || pod.lifetime == Lifetime::Over || is_over {
        true => Err(Absent::Gone(caller.pod)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::Wish;

    #[test]
    fn a_caller_is_there_as_long_as_its_pod_is_on_its_node() {
        let now = SystemTime::now();
        let caller = Caller { node: "node-a".into(), pod: PodUid::from_bytes([7; 16]) };
        let judged = |change: fn(&mut KnownPod)| {
            let mut pod = KnownPod {
                namespace: "sheath-system".into(),
                service_account: "sheath-agent".into(),
                node: "node-a".into(),
                is_mirror: false,
                lifetime: Lifetime::Living,
                ends: None,
                host_network: true,
                addresses: Box::default(),
                wish: Wish::Unsaid,
            };
            change(&mut pod);
            judge(&pod, &caller, ("sheath-system", "sheath-agent"), now)
        };
        assert_eq!(judged(|_| {}), Ok(()));
        let ending = |pod: &mut KnownPod| {
            pod.lifetime = Lifetime::Ending;
            pod.ends = Some(SystemTime::now());
        };
        assert_eq!(judged(ending), Ok(()), "it may still need its pods' identities");
        let (gone, other) = (Err(Absent::Gone(caller.pod)), Err(Absent::Other(caller.pod)));
        let long_ago = |pod: &mut KnownPod| pod.ends = Some(SystemTime::now() - 2 * LENIENCE);
        assert_eq!(judged(long_ago), gone);
        assert_eq!(judged(|pod| pod.node = "node-b".into()), gone);
        assert_eq!(judged(|pod| pod.lifetime = Lifetime::Over), gone);
        assert_eq!(judged(|pod| pod.namespace = "shop".into()), other);
        assert_eq!(judged(|pod| pod.service_account = "default".into()), other);
        assert_eq!(judged(|pod| pod.is_mirror = true), other);
    }
}
