//! Flows that go to the process that comes after this one.
//!
//! While a successor takes them, each flow that is in the relay stage, or comes to it, is paused between two steps, saved and
//! offered with copies of both its descriptors. If it is taken, what this process has of it is dropped without a word on the legs:
//! neither is closed as long as the successor has it. If it is not, it goes on here and is not offered again.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::flow::FlowLog;
use super::saved::{SavedFlow, SavedRecord};
use super::{FlowError, Pipeline};
use crate::handover::{FlowTaker, MovingFlow, Offer};
use crate::relay::Relay;
use crate::sessions::Live;
use crate::sys::netns::socket_cookie;
use crate::telemetry::Stayed;
use crate::wire::Session;
use crate::wire::saved::NotSaved;

/// Flows that are on their way at once. Each has two more descriptors meanwhile, and its bytes in memory once more.
const MOST: u32 = 8;

/// Where flows go.
#[derive(Debug, Default)]
pub struct Moves {
    /// `None` as long as they stay here.
    taker: Mutex<Option<Arc<dyn FlowTaker>>>,
}

impl Moves {
    /// True if flows go elsewhere: nothing is kept for those that begin later.
    #[must_use]
    pub fn are_under_way(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<dyn FlowTaker>>> {
        self.taker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a flow cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum NotMoved {
    #[error(transparent)]
    Unsaved(#[from] NotSaved),
    #[error("its connections cannot be copied: {0}")]
    Connection(#[from] io::Error),
    /// The session is not one of those that are judged.
    #[error("its session is over")]
    Over,
}

impl NotMoved {
    fn reason(&self) -> Stayed {
        match self {
            Self::Connection(_) => Stayed::Descriptors,
            Self::Unsaved(_) | Self::Over => Stayed::Unsaved,
        }
    }
}

impl Pipeline {
    /// Offers each flow to `taker`, few at a time, and from now on each that comes to the relay stage, until [`Self::keep_flows`].
    /// Completes when every flow that was in the relay stage is gone or stays. Sessions between flows end.
    pub async fn move_flows(&self, taker: Arc<dyn FlowTaker>) {
        *self.moves.lock() = Some(taker);
        let sessions = &self.published.sessions;
        let live = sessions.begin_calls();
        self.idle.clear();
        let turns = Arc::new(Semaphore::new(MOST as usize));
        // Never closed.
        for number in live {
            if let Ok(turn) = turns.clone().acquire_owned().await {
                sessions.call(number, turn);
            }
        }
        let _ = turns.acquire_many(MOST).await;
    }

    /// Flows stay here from now on: there is no successor, or it takes none any more.
    pub fn keep_flows(&self) {
        self.published.sessions.end_calls();
        *self.moves.lock() = None;
    }

    /// A paused flow, for another process. Its legs must not be touched until it is known what became of it.
    ///
    /// # Errors
    /// Why it has to stay.
    pub(super) fn save(
        &self,
        (app, session): (&TcpStream, &dyn Session),
        relay: &Relay,
        live: &Live,
        log: &FlowLog,
    ) -> Result<MovingFlow, NotMoved> {
        let facts = live.facts().ok_or(NotMoved::Over)?;
        let saved = SavedFlow {
            workload: facts.workload,
            namespace: socket_cookie(app)?,
            record: SavedRecord::of(&log.record),
            basis: facts.basis.save(),
            relay: relay.save()?,
            wire: session.save()?,
        };
        let state = saved.encode()?;
        Ok(MovingFlow { state, app: copy(app)?, wire: copy(session.tcp())? })
    }

    /// Offers a flow that was called. Others wait for as long as it has its `turn`.
    ///
    /// # Errors
    /// [`FlowError::Moved`] if it is gone.
    pub(super) async fn offer(
        &self,
        flow: Result<MovingFlow, NotMoved>,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<(), FlowError> {
        let _turn = turn;
        let taker = self.moves.lock().clone();
        // There was one.
        let Some(taker) = taker else {
            return Ok(());
        };
        let reason = match flow {
            Ok(flow) => match taker.offer(flow).await {
                Offer::Taken => return Err(FlowError::Moved),
                Offer::Refused(why) => {
                    tracing::debug!(why, "the next process does not take a connection");
                    Stayed::Refused
                }
            },
            Err(why) => {
                tracing::debug!(%why, "a connection cannot go to the next process");
                why.reason()
            }
        };
        self.counters.moves.stayed.of(reason).increment();
        Ok(())
    }
}

/// Another descriptor of a connection.
fn copy(tcp: &TcpStream) -> io::Result<OwnedFd> {
    SockRef::from(tcp).try_clone().map(OwnedFd::from)
}
