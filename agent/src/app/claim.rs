//! How an agent gets to be the one of its instance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sheath_common::maps::ABI;
use tokio::sync::watch;

use super::error::StartError;
use super::lock::Lock;
use super::told::Told;
use crate::config::Instance;
use crate::control::Control;
use crate::credentials::Identities;
use crate::desired::Desired;
use crate::handover::{Introduction, Message, NotCalled, Predecessor, Yielded};

/// How long an agent that is to take over waits for one to end that cannot hand over: one that is told to end lets flows go on
/// for a while.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between attempts.
const AGAIN: Duration = Duration::from_millis(100);

/// What an agent begins with.
#[derive(Debug)]
pub enum Claim {
    /// Nobody else is there.
    Held(Lock),
    /// Another agent is, and expects this one to take over.
    Called(Predecessor),
}

/// This agent, as it introduces itself to another.
#[must_use]
fn introduction() -> Introduction {
    Introduction { agent: env!("CARGO_PKG_VERSION").to_owned(), abi: ABI }
}

/// What a successor of this agent is told.
pub fn welcome(
    wanted: watch::Receiver<Arc<Desired>>,
    identities: Arc<Identities>,
) -> impl Fn() -> Message + Clone {
    move || {
        let wanted = wanted.borrow();
        let able = wanted.workloads.iter().filter(|one| identities.current(one.id).is_ok());
        Message::welcome(introduction(), able.map(|one| one.key().into_owned()).collect())
    }
}

impl Claim {
    /// Takes the lock of the instance or, to `take_over`, calls the agent that has it. One that does not answer is waited for.
    ///
    /// # Errors
    /// If another agent runs and goes on.
    pub async fn make(instance: &Instance, take_over: bool) -> Result<Self, StartError> {
        let until = Instant::now() + PATIENCE;
        let mut said = String::new();
        loop {
            let running = match Lock::take(instance) {
                Err(error @ StartError::AlreadyRunning(_)) if take_over => error,
                lock => return lock.map(Self::Held),
            };
            let problem = match Predecessor::call(&instance.handover_socket(), introduction()).await
            {
                Ok(predecessor) => return Ok(Self::Called(predecessor)),
                Err(NotCalled::Refused(reason)) => {
                    let instance = instance.name.clone();
                    return Err(StartError::NotReplaced { instance, reason });
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                return Err(running);
            }
            if problem != said {
                tracing::warn!(
                    reason = problem,
                    limit = %humantime::format_duration(PATIENCE),
                    "an agent of this instance runs and does not hand over; waiting for it to end"
                );
                said = problem;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// How long a successor waits for identities of those that the agent before can serve. That one serves them meanwhile, and goes on if
/// there are none: whoever gives them may be away, and may be just being updated as well.
const IDENTITIES: Duration = Duration::from_secs(60);
/// So many that lack one are named.
const MOST_NAMED: usize = 5;

/// Waits until this agent can serve whom its predecessor serves, or is told to end.
///
/// # Errors
/// If identities do not come.
pub async fn await_identities(
    predecessor: &Predecessor,
    control: &mut Control,
    told: &mut Told,
) -> Result<(), StartError> {
    let of = predecessor.identified();
    let count = control.lacking(of).count();
    if count > 0 {
        tracing::info!(
            workloads = count,
            "waiting for identities; the agent that runs goes on serving meanwhile"
        );
    }
    let is_late = async {
        tokio::select! {
            () = told.wait() => false,
            // Nobody serves them any more: better those that can be.
            () = predecessor.gone() => false,
            () = tokio::time::sleep(IDENTITIES) => true,
        }
    };
    let is_late = control.await_identities(of, is_late).await.unwrap_or(false);
    // If it is late and none is lacking, it is a discovery that says nothing.
    match control.lacking(of).count() {
        count if is_late && count > 0 => {
            let some = control.lacking(of).take(MOST_NAMED).map(str::to_owned).collect();
            Err(StartError::Unidentified { count, some, limit: IDENTITIES })
        }
        _ => Ok(()),
    }
}

/// How long the lock of an agent that has just ended may take to be free.
const FREED: Duration = Duration::from_secs(2);

/// Has a predecessor yield. From then on this agent is the one that writes. If the predecessor ends before, this agent begins where
/// nobody else is.
///
/// # Errors
/// If it does not yield, or passes on something else than its lock.
pub async fn take_over(
    predecessor: Predecessor,
    instance: &Instance,
) -> Result<(Lock, Option<Yielded>), StartError> {
    let (pid, introduction) = (predecessor.pid(), predecessor.introduction());
    tracing::info!(pid, version = introduction.agent, "taking over from the agent that runs");
    if introduction.abi != ABI {
        tracing::warn!(
            pid,
            "its maps have another shape; connections may be refused for a moment while the programs are replaced"
        );
    }
    let broken = match predecessor.ask_to_yield().await {
        Ok((lock, yielded)) => return Ok((Lock::received(lock, instance)?, Some(yielded))),
        Err(broken) => broken,
    };
    let until = Instant::now() + FREED;
    while Instant::now() < until {
        if let Ok(lock) = Lock::take(instance) {
            tracing::warn!(error = %broken, "the agent that was to be taken over from is gone");
            return Ok((lock, None));
        }
        tokio::time::sleep(AGAIN).await;
    }
    Err(StartError::NotYielded(broken))
}
