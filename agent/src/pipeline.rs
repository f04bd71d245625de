//! The life of one connection.
//!
//! Five stages, each taking what the one before it made: **capture** says who dialled what, **policy** says
//! what should happen and whom to expect, **identity** gives the workload's certificate, **tls** proves both
//! ends, and **relay** moves the bytes. Each stage needs what the one before it returns, so none can run early or
//! twice; and no byte of the application moves before the peer's identity has been proved and approved.
//!
//! ```text
//! outbound:  application ──▶ capture ─▶ policy ─▶ identity ─▶ dial ─▶ tls ─▶ relay ──▶ wire
//! inbound:   wire ──▶ capture ─▶ policy ─▶ identity ─▶ tls ─▶ dial ─▶ relay ──▶ application
//! ```
//!
//! Capture calls [`FlowHandler`] for each connection. The other files: `admit` tells an inbound connection from plaintext and has
//! its client proved; `callee` says whom an outbound flow calls, and `connect` has both ends prove who they are; `dial` makes the
//! other leg and answers the client; `reuse` carries flow after flow in one session between agents; `moving` gives flows to the process that comes
//! after this one, which takes them in `resume`; `outcome` counts and logs each flow.

mod admit;
mod callee;
mod connect;
mod dial;
mod flow;
mod handler;
mod moving;
mod outcome;
mod places;
mod resume;
mod reuse;
mod saved;

use std::pin::pin;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::flow::FlowIds;
use crate::limits::Quotas;
use crate::published::Published;
use crate::relay::{Done, Relay};
use crate::sessions::{Basis, IdleSessions, Interruption, Live, WireLeg};
use crate::sys::sockopt;
use crate::telemetry::AgentCounters;
use crate::wire::{Abort, RefusalCode, Session};
use crate::workers::Workers;

use admit::Admission;
use callee::Callee;
pub use flow::Timeouts;
use flow::{FlowLog, Inbound, Outbound, on_heap};
pub use handler::FlowHandler;
use moving::Moves;
use outcome::FlowError;
use places::Places;
pub use resume::{NotResumed, Resumed};
use reuse::route;
pub use saved::SavedFlow;

/// Everything a flow needs; shared by all of them.
#[derive(Debug)]
pub struct Pipeline {
    /// Policy, identities, and the sessions in use.
    pub published: Published,
    /// What the data path counts.
    pub counters: Arc<AgentCounters>,
    /// What each workload may take of the agent.
    pub quotas: Arc<Quotas>,
    /// Sessions between flows, kept by clients for the next one.
    pub idle: Arc<IdleSessions>,
    /// How long each part of a flow may take.
    pub timeouts: Timeouts,
    /// Gives each flow its id.
    pub ids: FlowIds,
    /// The threads that carry flows.
    pub workers: Workers,
    /// The flows themselves: an agent that ends waits for them.
    pub tasks: TaskTracker,
    /// Where flows go that do not stay in this process.
    pub moves: Moves,
    /// Where flows of the process before this one may go on.
    pub places: Places,
    /// Cancelled when the agent is about to end.
    pub ending: CancellationToken,
}

impl Pipeline {
    /// An application has dialled a destination.
    async fn outbound(&self, flow: &mut Outbound, log: &mut FlowLog) -> Result<(), FlowError> {
        let target = match self.callee(flow, log).await? {
            Callee::Proved(target) => target,
            Callee::Plain(pod) => return self.pass(flow, pod, log).await,
        };
        log.has_rule(target.rule());
        let credentials = self.published.identities.current(flow.workload)?;
        log.has_identity(&credentials);
        let WireLeg { session, standing } = match on_heap(self.reopen(flow, &target, log)).await? {
            None => on_heap(self.connect(flow, &target, &credentials, log)).await?,
            Some(idle) => idle,
        };
        let certificates = standing.proof.certificates.clone();
        let route = route(flow, &target);
        let basis = Basis::Outbound { target, destination: flow.far_end(), certificates };
        let mut live = self.published.sessions.open(flow.facts(basis), flow.revision)?;
        let mut relay = Relay::new(self.timeouts.idle);
        let legs = (&flow.app, session);
        if let Some(session) = self.relay(legs, &mut relay, &mut live, log).await? {
            self.keep(route, WireLeg { session, standing });
        }
        Ok(())
    }

    /// The network has dialled a workload.
    async fn inbound(self: Arc<Self>, flow: Inbound, tcp: TcpStream, mut log: FlowLog) {
        let served = match on_heap(self.admit(flow, tcp, &mut log)).await {
            Ok((flow, Admission::Proved(leg))) if leg.session.carries_many() => {
                return self.serve_each(flow, leg, log).await;
            }
            Ok((flow, Admission::Proved(WireLeg { session, standing }))) => {
                on_heap(self.serve(&flow, session, standing.inbound(), &mut log)).await
            }
            Ok((flow, Admission::Permissive(session))) => {
                on_heap(self.serve(&flow, session, Basis::Permissive, &mut log)).await
            }
            Err(error) => Err(error),
        };
        log.conclude(served.map(|_| ()));
    }

    /// Serves one flow of a client that may have it. Returns the session if it can have another.
    async fn serve(
        &self,
        flow: &Inbound,
        session: Box<dyn Session>,
        basis: Basis,
        log: &mut FlowLog,
    ) -> Result<Option<Box<dyn Session>>, FlowError> {
        let mut live = match self.published.sessions.open(flow.facts(basis), flow.revision) {
            Ok(live) => live,
            Err(revoked) => {
                session.refuse(RefusalCode::NOT_ALLOWED);
                return Err(revoked.into());
            }
        };
        let (mut app, session) = self.answer(flow, session, &mut live).await?;
        let mut relay = Relay::new(self.timeouts.idle);
        let over = self.relay((&app.stream, session), &mut relay, &mut live, log).await;
        if let Err(FlowError::Moved) = &over {
            app.name.leave();
        }
        over
    }

    /// Moves the bytes of one flow, for as long as its session is good and no other process takes it. Returns the session if it can
    /// have another.
    async fn relay(
        &self,
        (app, mut session): (&TcpStream, Box<dyn Session>),
        relay: &mut Relay,
        live: &mut Live,
        log: &mut FlowLog,
    ) -> Result<Option<Box<dyn Session>>, FlowError> {
        loop {
            let done = relay.run(app, &mut *session, pin!(live.interrupted())).await;
            log.record.transferred = relay.transferred();
            match done? {
                Done::Ended => {
                    // Both directions have ended in order: the legs are not reset.
                    sockopt::close_gracefully(app).map_err(FlowError::Close)?;
                    return session.finish().map_err(FlowError::Close);
                }
                Done::Paused(Interruption::Revoked(revoked)) => {
                    session.abort(Abort::Revoked);
                    return Err(revoked.into());
                }
                Done::Paused(Interruption::Called(turn)) => {
                    let flow = self.save((app, &*session), relay, live, log);
                    on_heap(self.offer(flow, turn)).await?;
                    live.stays();
                }
            }
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
