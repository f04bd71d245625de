//! Flows that come from the process before this one.
//!
//! What it says of a flow is checked as if a stranger had said it. The peer is judged again, by the policy and the trust of this
//! process, just as that of any live session; one that would not be let through now is cut.

use std::fmt;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sheath_common::workload::WorkloadId;
use socket2::{Protocol, SockRef, Type};
use tokio::net::TcpStream;

use super::flow::FlowLog;
use super::saved::SavedFlow;
use super::{FlowError, FlowHandler, Pipeline};
use crate::capture::{ClientName, Place};
use crate::flow::{Direction, FlowRecord};
use crate::handover::{FlowResumer, GoOn, MovingFlow};
use crate::limits::{Permit, QuotaExceeded};
use crate::relay::Relay;
use crate::sessions::{Basis, NotRebuilt, SessionFacts};
use crate::sys::netns::socket_cookie;
use crate::telemetry::NotTaken;
use crate::wire::saved::NotRestored;
use crate::wire::{Abort, GoAwayCode, Session, modes};
use crate::workers::FlowSlot;

/// Why a flow of another process is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotResumed {
    #[error(transparent)]
    State(#[from] NotRestored),
    #[error("the connection to the {leg} cannot be used: {error}")]
    Connection { leg: &'static str, error: io::Error },
    #[error("the connection to the {0} is none of TCP's, or is over")]
    NoTcp(&'static str),
    #[error("the connection to the {0} is in another network namespace than is said")]
    Elsewhere(&'static str),
    #[error(
        "no workload here is number {id} with the name `{name}`; was it removed from the configuration?"
    )]
    Workload { id: WorkloadId, name: String },
    #[error("the network namespace with the cookie {0} is not served here")]
    Namespace(u64),
    #[error("the workload has no identity here yet by which its peer could be judged")]
    NoIdentity,
    #[error(transparent)]
    Limit(#[from] QuotaExceeded),
}

impl NotResumed {
    fn reason(&self) -> NotTaken {
        match self {
            Self::State(NotRestored::Connection(_))
            | Self::Connection { .. }
            | Self::NoTcp(_)
            | Self::Elsewhere(_) => NotTaken::Connection,
            Self::State(_) => NotTaken::State,
            Self::Workload { .. } => NotTaken::Workload,
            Self::Namespace(_) => NotTaken::Namespace,
            Self::NoIdentity => NotTaken::Identity,
            Self::Limit(_) => NotTaken::Limit,
        }
    }
}

impl From<NotRebuilt> for NotResumed {
    fn from(error: NotRebuilt) -> Self {
        match error {
            NotRebuilt::NoIdentity => Self::NoIdentity,
            NotRebuilt::NobodyExpected => {
                NotRestored::Contradiction("a peer of which nothing is expected").into()
            }
        }
    }
}

impl FlowResumer for FlowHandler {
    fn restore(&self, flow: MovingFlow) -> Result<GoOn, String> {
        match self.resume(flow) {
            Ok(resumed) => Ok(Box::new(|| resumed.go_on())),
            Err(why) => {
                self.0.counters.moves.not_taken.of(why.reason()).increment();
                Err(why.to_string())
            }
        }
    }
}

/// A flow that was another process's, and is ready to go on here. Dropped, it lets go of its legs without touching them.
pub struct Resumed {
    pipeline: Arc<Pipeline>,
    facts: SessionFacts,
    record: Box<FlowRecord>,
    place: Arc<dyn Place>,
    app: TcpStream,
    session: Box<dyn Session>,
    relay: Relay,
    permit: Permit,
    slot: FlowSlot,
}

impl fmt::Debug for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Resumed");
        shown.field("record", &self.record).field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl FlowHandler {
    /// Restores a flow, and touches neither of its legs.
    ///
    /// # Errors
    /// Why it cannot go on here.
    pub fn resume(&self, flow: MovingFlow) -> Result<Resumed, NotResumed> {
        let MovingFlow { state, app, wire } = flow;
        let saved = SavedFlow::decode(&state)?;
        drop(state);
        let (app, wire) = (leg(app, "application")?, leg(wire, "other node")?);
        for (leg, tcp) in [("application", &app), ("other node", &wire)] {
            let cookie =
                socket_cookie(tcp).map_err(|error| NotResumed::Connection { leg, error })?;
            if cookie != saved.namespace {
                return Err(NotResumed::Elsewhere(leg));
            }
        }
        let pipeline = self.0.clone();
        let nowhere = NotResumed::Namespace(saved.namespace);
        let place = pipeline.places.get(saved.namespace).ok_or(nowhere)?;
        let facts = pipeline.facts_of(&saved, &*place)?;
        let permit = pipeline.quotas.take(saved.workload)?;
        let record = Box::new(saved.record.restore()?);
        let relay = Relay::restore(&saved.relay, pipeline.timeouts.idle)?;
        // Both legs are waited for by the thread that is to carry the flow.
        let slot = pipeline.workers.slot();
        let entered = slot.runtime.enter();
        let session = modes::restore(&saved.wire, wire, permit.quota().buffers.clone())?;
        let app = TcpStream::from_std(app).map_err(NotRestored::from)?;
        drop(entered);
        if let Basis::Inbound { as_agent, .. } = &facts.basis
            && *as_agent != session.mode().is_of_agents()
        {
            return Err(NotRestored::Contradiction("a client that is an agent, and none").into());
        }
        Ok(Resumed { pipeline, facts, record, place, app, session, relay, permit, slot })
    }
}

impl Pipeline {
    /// What a session rests on that another process has had.
    fn facts_of(&self, saved: &SavedFlow, place: &dyn Place) -> Result<SessionFacts, NotResumed> {
        let policy = self.published.policy.load();
        let (workload, name) = (saved.workload, &saved.record.workload);
        if policy.workload(workload).is_none_or(|config| config.name != *name) {
            return Err(NotResumed::Workload { id: workload, name: name.clone() });
        }
        let held = self.published.identities.held(workload);
        let credentials = held.as_ref().and_then(|held| held.credentials.as_deref());
        if saved.basis.is_proved() && credentials.is_none() {
            return Err(NotResumed::NoIdentity);
        }
        let stay = place.stay(workload).ok_or(NotResumed::Namespace(saved.namespace))?;
        let basis = saved.basis.clone().rebuild(&policy, credentials)?;
        Ok(SessionFacts { workload, basis, stay })
    }
}

impl Resumed {
    /// Goes on with the flow: nobody else does.
    pub fn go_on(self) {
        let (tasks, runtime) = (self.pipeline.tasks.clone(), self.slot.runtime.clone());
        tasks.spawn_on(self.run(), &runtime);
    }

    async fn run(self) {
        let Self { pipeline, facts, record, place, app, mut session, mut relay, permit, slot } =
            self;
        let (workload, direction) = (facts.workload, record.direction);
        let mut name = named(&*place, &app, &record);
        drop(place);
        let mut log = FlowLog { record, open: pipeline.counters.take(workload, direction) };
        log.record.transferred = relay.transferred();
        let mut live = match pipeline.published.sessions.take_up(facts) {
            Ok((live, Some(judged))) => {
                log.has_rule(Some(&judged.rule));
                log.record.peer_id = Some(judged.peer);
                live
            }
            Ok((live, None)) => {
                let policy = pipeline.published.policy.load();
                if direction == Direction::Inbound {
                    log.has_rule(policy.inbound_mode_rule(workload).as_ref());
                }
                live
            }
            Err(revoked) => {
                session.abort(Abort::Revoked);
                return log.conclude(Err(revoked.into()));
            }
        };
        let over = pipeline.relay((&app, session), &mut relay, &mut live, &mut log).await;
        // The next flow has a session of its own, which begins with this process's identity and trust.
        let over = over.map(|session| {
            if let Some(session) = session {
                session.close((direction == Direction::Inbound).then_some(GoAwayCode::SHUTDOWN));
            }
        });
        if let Err(FlowError::Moved) = &over {
            name.leave();
        }
        drop((app, name, permit));
        log.conclude(over);
        drop(slot);
    }
}

/// Has the application see its client, if it is one that is called.
fn named(place: &dyn Place, app: &TcpStream, record: &FlowRecord) -> ClientName {
    let client = record.source.filter(|_| record.direction == Direction::Inbound);
    let Some(client) = client else {
        return ClientName::default();
    };
    let named = app.local_addr().and_then(|leg| place.name_client(leg, client));
    named.unwrap_or_else(|error| {
        tracing::warn!(%error, "an application may see the agent's address in place of its client's");
        ClientName::default()
    })
}

/// A descriptor that is said to be one of a connection.
fn leg(descriptor: OwnedFd, leg: &'static str) -> Result<StdTcpStream, NotResumed> {
    let socket = SockRef::from(&descriptor);
    let is_tcp = socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && socket.protocol().is_ok_and(|protocol| protocol == Some(Protocol::TCP));
    let is_connected = socket.peer_addr().is_ok_and(|peer| peer.as_socket().is_some());
    if !is_tcp || !is_connected {
        return Err(NotResumed::NoTcp(leg));
    }
    let tcp = StdTcpStream::from(descriptor);
    tcp.set_nonblocking(true).map_err(|error| NotResumed::Connection { leg, error })?;
    Ok(tcp)
}
