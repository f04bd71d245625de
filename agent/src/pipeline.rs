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
//! Capture calls [`FlowHandler`] for each connection. The other files: `admit` tells an inbound
//! connection from plaintext and has its client proved; `callee` says whom an outbound flow calls; `dial` makes the other leg; `reuse` carries flow after flow in one
//! session between agents; `outcome` counts and logs each flow.

mod admit;
mod callee;
mod dial;
mod flow;
mod handler;
mod outcome;
mod reuse;

use std::pin::pin;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::credentials::Credentials;
use crate::flow::{FlowIds, Protection};
use crate::limits::Quotas;
use crate::peer::Target;
use crate::published::Published;
use crate::relay::{Done, Relay, RelayError};
use crate::sessions::{Basis, IdleSessions, Live, WireLeg};
use crate::sys::sockopt;
use crate::telemetry::AgentCounters;
use crate::tls;
use crate::wire::{Abort, Endpoints, RefusalCode, Session, plain};
use crate::workers::Workers;

use admit::Admission;
use callee::Callee;
pub use flow::Timeouts;
use flow::{FlowLog, Inbound, Outbound, on_heap};
pub use handler::FlowHandler;
use outcome::FlowError;
use reuse::route;

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
    /// Cancelled when the agent is about to end.
    pub ending: CancellationToken,
}

impl Pipeline {
    /// An application has dialled a destination.
    async fn outbound(&self, flow: &mut Outbound, log: &mut FlowLog) -> Result<(), FlowError> {
        let target = match self.callee(flow, log).await? {
            Callee::Proved(target) => target,
            Callee::Plain => return self.pass(flow, log).await,
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
        if let Some(session) = self.relay(&flow.app, session, &mut live, log).await? {
            self.keep(route, WireLeg { session, standing });
        }
        Ok(())
    }

    /// Dials the wire leg, has both ends prove who they are, and begins the flow there.
    async fn connect(
        &self,
        flow: &Outbound,
        target: &Target,
        credentials: &Credentials,
        log: &mut FlowLog,
    ) -> Result<WireLeg, FlowError> {
        let (quota, limit) = (flow.permit.quota(), self.timeouts.handshake);
        quota.begin_handshake(limit).await?;
        let tcp = self.dial_wire(flow, target.connect_timeout()).await?;
        let source = tcp.local_addr().map_err(FlowError::DialWire)?;
        log.record.source = Some(source);
        let handshake = tls::connect(tcp, &credentials.tls, target, limit, quota);
        let established = log.open.handshake(handshake).await?;
        let mut leg = WireLeg::new(established, flow.terms(credentials));
        log.has_session(source, &leg.standing.proof);
        let endpoints = Endpoints { source, destination: flow.far_end() };
        leg.session.begin(endpoints).map_err(RelayError::from)?;
        if flow.reached.is_some() {
            // As long as nothing was read from the application, another endpoint may carry the flow.
            let limit = self.timeouts.connect;
            on_heap(leg.taken(limit)).await.map_err(FlowError::not_taken)?;
        }
        Ok(leg)
    }

    /// Carries the flow to an endpoint that nobody protects, as it is.
    async fn pass(&self, flow: &Outbound, log: &mut FlowLog) -> Result<(), FlowError> {
        let tcp = on_heap(self.dial_wire(flow, None)).await?;
        log.record.source = Some(tcp.local_addr().map_err(FlowError::DialWire)?);
        log.record.protection = Protection::Plaintext;
        self.counters.outbound_plaintext.increment();
        let session = plain::session(tcp, flow.permit.quota().buffers.clone());
        let mut live = self.published.sessions.open(flow.facts(Basis::Plain), flow.revision)?;
        self.relay(&flow.app, session, &mut live, log).await.map(|_| ())
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
        mut session: Box<dyn Session>,
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
        session.accept().map_err(RelayError::from)?;
        let dialled = tokio::select! {
            biased;
            revoked = live.revoked() => return Err(revoked.into()),
            dialled = on_heap(self.dial_app(flow)) => dialled,
        };
        match dialled {
            Ok(app) => self.relay(&app.stream, session, &mut live, log).await,
            Err(error) => {
                session.refuse(error.refusal());
                Err(error)
            }
        }
    }

    /// Moves the bytes of one flow, for as long as its session is good. Returns the session if it can have another.
    async fn relay(
        &self,
        app: &TcpStream,
        mut session: Box<dyn Session>,
        live: &mut Live,
        log: &mut FlowLog,
    ) -> Result<Option<Box<dyn Session>>, FlowError> {
        let mut relay = Relay::new(self.timeouts.idle);
        let done = relay.run(app, &mut *session, pin!(live.revoked())).await;
        log.record.transferred = relay.transferred();
        match done? {
            Done::Ended => {
                // Both directions have ended in order: the legs are not reset.
                sockopt::close_gracefully(app).map_err(FlowError::Close)?;
                session.finish().map_err(FlowError::Close)
            }
            Done::Paused(revoked) => {
                session.abort(Abort::Revoked);
                Err(revoked.into())
            }
        }
    }
}
