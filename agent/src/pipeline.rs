//! The life of one connection.
//!
//! Five stages, each taking what the one before it made: **capture** says who dialled what, **policy** says
//! what should happen and whom to expect, **identity** gives the workload's certificate, **tls** proves both
//! ends, and **relay** moves the bytes. What a stage returns is needed by the next, so none can run early or
//! twice; and no byte of the application moves before the peer's identity has been proved and approved.
//!
//! ```text
//! outbound:  application ──▶ capture ─▶ policy ─▶ identity ─▶ dial ─▶ tls ─▶ relay ──▶ wire
//! inbound:   wire ──▶ capture ─▶ policy ─▶ identity ─▶ tls ─▶ dial ─▶ relay ──▶ application
//! ```
//!
//! Between agents a session outlives its flow, and the next flow to the same place takes it up where the handshake
//! ended ([`flows`]). What made the session good is asked again for each.

mod admission;
mod error;
mod flows;
mod starter;

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use sheath_common::workload::WorkloadId;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::capture::{AcceptedInbound, AcceptedOutbound, LocalLeg, Namespace};
use crate::config::Timeouts;
use crate::control::Published;
use crate::flow::{Direction, FlowIds, FlowRecord, Outcome, Protection, Stage};
use crate::framing::{Open, Refused, Reset};
use crate::identity::Credentials;
use crate::relay::{self, Framing, RelayError};
use crate::sessions::{
    Basis, FlowSession, IdleSessions, Live, Revision, SessionFacts, Side, Terms,
};
use crate::shares::{Admitted, Share, Shares};
use crate::sys::sockopt;
use crate::sys::tcp::Tcp;
use crate::telemetry::{AgentCounters, Ending, OpenFlow, log_flow};
use crate::tls::{self, Content, PeerCertificates, Proof, Session, Stream, Target};
use crate::workers::Workers;

use error::FlowError;
pub use starter::Starter;

/// Everything a flow needs; shared by all of them.
#[derive(Debug)]
pub struct Pipeline {
    pub published: Published,
    pub counters: Arc<AgentCounters>,
    pub shares: Arc<Shares>,
    pub idle: Arc<IdleSessions>,
    pub timeouts: Timeouts,
    pub ids: FlowIds,
    pub workers: Workers,
    pub tasks: TaskTracker,
    /// Cancelled when the agent is about to end.
    pub ending: CancellationToken,
}

/// A flow that is open, and what will be told about it.
struct Flow {
    record: Box<FlowRecord>,
    _open: OpenFlow,
}

/// Who wants to speak with whom, as seen from the server.
#[derive(Clone, Copy, Debug)]
struct Call {
    workload: WorkloadId,
    client: SocketAddr,
    destination: SocketAddr,
}

/// A session whose peer is proved and approved.
enum Proved {
    /// It carries flow after flow.
    Flows(Box<FlowSession>),
    /// It carries the bytes of one.
    Bytes(Box<Session>),
}

impl Pipeline {
    async fn outbound(
        &self,
        namespace: &Namespace,
        mut accepted: AcceptedOutbound,
        share: &Share,
        record: &mut FlowRecord,
    ) -> Result<(), FlowError> {
        let mut is_again = false;
        let session = loop {
            let begun = self.call(namespace, &mut accepted, share, record, is_again).await;
            match begun {
                // A new session is over already, and has taken nothing of the application's: another may last longer.
                Err(FlowError::Relay(RelayError::NotTaken(_))) if !is_again => is_again = true,
                done => break done?,
            }
        };
        if let Some(session) = session {
            self.keep(namespace, &accepted, session);
        }
        Ok(())
    }

    /// Carries a flow to its destination: on a session that is kept, unless it must be a new one. Returns the session if
    /// it can have another.
    async fn call(
        &self,
        namespace: &Namespace,
        accepted: &mut AcceptedOutbound,
        share: &Share,
        record: &mut FlowRecord,
        must_be_new: bool,
    ) -> Result<Option<Box<FlowSession>>, FlowError> {
        let AcceptedOutbound { workload, destination, .. } = *accepted;

        let revision = self.published.sessions.revision();
        let target = self.published.policy.load().target_at(destination)?;
        let credentials = self.published.identities.current(workload)?;
        record.local_id = Some(credentials.svid.name());

        // On the heap, and only for as long as it takes: a flow that is idle must be small.
        let kept = match must_be_new {
            true => None,
            false => Box::pin(self.reopen(namespace, accepted, record)).await?,
        };
        let session = match kept {
            Some(session) => Proved::Flows(session),
            None => {
                let connecting =
                    self.connect(namespace, accepted, &target, &credentials, share, record);
                let terms = terms(namespace, workload, &credentials, revision);
                let session = Proved::new(Box::pin(connecting).await?, Side::Client, terms);
                session.begun(record.source, destination)?
            }
        };

        let certificates = session.certificates().clone();
        let basis = Basis::Outbound { target, destination, certificates };
        let mut live = self.live(namespace, workload, basis, revision)?;
        self.relay(workload, &mut accepted.stream, session, &mut live, record).await
    }

    /// Dials the wire leg, and shakes hands on it.
    async fn connect(
        &self,
        namespace: &Namespace,
        accepted: &AcceptedOutbound,
        target: &Target,
        credentials: &Credentials,
        share: &Share,
        record: &mut FlowRecord,
    ) -> Result<Session, FlowError> {
        share.begin_handshake(self.timeouts.handshake).await?;
        let limit = target.connect_timeout().unwrap_or(self.timeouts.connect);
        let wire = namespace
            .dial_wire(accepted.app, accepted.destination, &accepted.inherited, limit)
            .await
            .map_err(FlowError::DialWire)?;
        let silent = self.timeouts.patience.dead_peer;
        sockopt::probe_peer(&wire, silent, &accepted.inherited.asked)
            .map_err(FlowError::DialWire)?;
        record.source = wire.local_addr().map_err(FlowError::DialWire)?;
        let limit = self.timeouts.handshake;
        let session = tls::connect(wire, &credentials.contexts, target, limit, share).await?;
        record_session(record, &session.proof);
        Ok(session)
    }

    async fn inbound(
        &self,
        namespace: &Namespace,
        accepted: AcceptedInbound,
        admitted: &mut Admitted,
        mut flow: Flow,
    ) {
        let AcceptedInbound { workload, client, destination, .. } = accepted;
        let call = Call { workload, client, destination };
        let revision = self.published.sessions.revision();
        // On the heap, as above.
        let record = &mut flow.record;
        let admitting = Box::pin(self.admit(namespace, accepted, revision, admitted, record));
        let result = match admitting.await {
            Ok(Some(Proved::Flows(session))) => {
                return self.serve(namespace, call, session, flow).await;
            }
            Ok(Some(session)) => {
                let record = &mut flow.record;
                let serving = self.serve_one(namespace, &call, session, revision, record);
                Box::pin(serving).await.map(|_| ())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.conclude(flow, result);
    }

    /// Serves one flow of a session. Returns it if it can have another.
    async fn serve_one(
        &self,
        namespace: &Namespace,
        call: &Call,
        mut session: Proved,
        revision: Revision,
        record: &mut FlowRecord,
    ) -> Result<Option<Box<FlowSession>>, FlowError> {
        let basis = Basis::Inbound {
            as_agent: session.is_of_agent(),
            certificates: session.certificates().clone(),
        };
        let mut live = match self.live(namespace, call.workload, basis, revision) {
            Ok(live) => live,
            Err(error) => {
                session.refuse(Refused::NOT_ALLOWED);
                return Err(error);
            }
        };
        session.accept()?;
        let mut dialling = Box::pin(self.dial_app(namespace, call));
        let dialled = unless_cut(&mut live, dialling.as_mut()).await?;
        drop(dialling);
        let mut app = match dialled {
            Ok(app) => app,
            Err(error) => {
                session.refuse(error.refusal());
                return Err(error);
            }
        };
        self.relay(call.workload, &mut app.stream, session, &mut live, record).await
    }

    /// Moves the bytes of one flow, for as long as its session is good. Returns the session if it can have another.
    async fn relay(
        &self,
        workload: WorkloadId,
        app: &mut TcpStream,
        session: Proved,
        live: &mut Live,
        record: &mut FlowRecord,
    ) -> Result<Option<Box<FlowSession>>, FlowError> {
        let (patience, moved) = (self.timeouts.patience, &mut record.moved);
        match session {
            Proved::Flows(mut session) => {
                let done = {
                    let running = pin!(session.run(app, patience, moved));
                    unless_cut(live, running).await
                };
                match done {
                    Ok(done) => done?,
                    Err(revoked) => {
                        session.reset(Reset::REVOKED);
                        return Err(revoked);
                    }
                }
                close(app)?;
                Ok(Some(session))
            }
            Proved::Bytes(mut session) => {
                match &mut session.stream {
                    Stream::Records(wire) => {
                        let framing = Framing::Bytes;
                        let relaying = relay::run_sealed(app, wire, framing, patience, moved);
                        unless_cut(live, pin!(relaying)).await??;
                    }
                    Stream::Library(wire) => {
                        let tcp = wire.get_ref().0.0.clone();
                        let share = self.shares.of(workload);
                        let (wire, buffers) = (&mut **wire, &share.buffers);
                        let relaying = relay::run(app, wire, &tcp, buffers, patience, moved);
                        unless_cut(live, pin!(Box::pin(relaying))).await??;
                    }
                }
                close(app).and_then(|()| close(session.stream.tcp())).map(|()| None)
            }
        }
    }

    /// Takes a session up among those that are judged again when things change.
    fn live(
        &self,
        namespace: &Namespace,
        workload: WorkloadId,
        basis: Basis,
        revision: Revision,
    ) -> Result<Live, FlowError> {
        let facts = SessionFacts { workload, basis };
        let stay = namespace.presence(workload);
        self.published.sessions.open(facts, revision, stay).map_err(FlowError::Revoked)
    }

    async fn pass_through(
        &self,
        namespace: &Namespace,
        wire: TcpStream,
        call: &Call,
        share: &Share,
        record: &mut FlowRecord,
    ) -> Result<(), FlowError> {
        let app = self.dial_app(namespace, call).await?;
        let (patience, moved) = (self.timeouts.patience, &mut record.moved);
        relay::run(&app.stream, &mut Tcp(&wire), &wire, &share.buffers, patience, moved).await?;
        close(&app.stream).and_then(|()| close(&wire))
    }

    async fn dial_app(&self, namespace: &Namespace, call: &Call) -> Result<LocalLeg, FlowError> {
        let Call { workload, client, destination } = *call;
        namespace
            .dial_app(workload, client, destination, self.timeouts.connect)
            .await
            .inspect_err(|error| {
                if error.is_refused() {
                    namespace.note_refused(destination.port());
                }
            })
            .map_err(FlowError::DialApp)
    }

    /// A flow with what is known from the start.
    fn begin(
        &self,
        direction: Direction,
        workload: WorkloadId,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Flow {
        let mut record = FlowRecord::new(self.ids.next(), direction, source, destination);
        if let Some(config) = self.published.policy.load().workload(workload) {
            record.workload.clone_from(&config.name);
        }
        Flow { record: Box::new(record), _open: self.counters.open(workload) }
    }

    fn conclude(&self, flow: Flow, result: Result<(), FlowError>) {
        let Flow { mut record, _open: open } = flow;
        drop(open);
        if let Err(FlowError::Tls(error)) = &result {
            record.peer_id = error.peer().cloned();
        }
        let ending = match result {
            Ok(()) => Ending { outcome: Outcome::Ok, stage: Stage::Relay, reason: String::new() },
            Err(error) => error.into(),
        };
        if ending.stage == Stage::Tls {
            self.counters.handshakes_failed.fetch_add(1, Relaxed);
        }
        log_flow(&record, &ending);
    }
}

impl Proved {
    fn new(session: Session, side: Side, terms: Terms) -> Self {
        match session {
            Session { stream: Stream::Records(stream), proof }
                if proof.content == Content::Flows =>
            {
                let good_until = terms.good_until.min(proof.certificates.believed_until());
                let terms = Terms { good_until, ..terms };
                Self::Flows(Box::new(FlowSession::new(stream, proof, side, terms)))
            }
            session => Self::Bytes(Box::new(session)),
        }
    }

    /// With its first flow begun.
    fn begun(mut self, source: SocketAddr, destination: SocketAddr) -> Result<Self, FlowError> {
        if let Self::Flows(session) = &mut self {
            session.open(Open { source, destination })?;
        }
        Ok(self)
    }

    /// Tells the client that its flow is ours from here on.
    fn accept(&mut self) -> Result<(), FlowError> {
        match self {
            Self::Flows(session) => Ok(session.accept()?),
            Self::Bytes(_) => Ok(()),
        }
    }

    /// Tells the client that there will be no flow. Where that cannot be said, it is a reset.
    fn refuse(self, code: Refused) {
        if let Self::Flows(session) = self {
            session.refuse(code);
        }
    }

    fn is_of_agent(&self) -> bool {
        match self {
            Self::Flows(_) => true,
            Self::Bytes(session) => session.proof.content.is_of_agent(),
        }
    }

    fn certificates(&self) -> &PeerCertificates {
        match self {
            Self::Flows(session) => &session.proof.certificates,
            Self::Bytes(session) => &session.proof.certificates,
        }
    }
}

/// How a session of a workload may be used again.
fn terms(
    namespace: &Namespace,
    workload: WorkloadId,
    credentials: &Credentials,
    revision: Revision,
) -> Terms {
    Terms {
        revision,
        opened: Instant::now(),
        good_until: credentials.svid.facts.not_after,
        place: namespace.presence(workload),
    }
}

fn record_session(record: &mut FlowRecord, proof: &Proof) {
    record.peer_id = Some(proof.peer.clone());
    record.negotiated = proof.negotiated;
    record.protection = if proof.is_mutual { Protection::Mtls } else { Protection::Tls };
}

/// Does something for as long as a session is good. Nothing moves once it is not.
async fn unless_cut<T>(
    live: &mut Live,
    work: Pin<&mut impl Future<Output = T>>,
) -> Result<T, FlowError> {
    tokio::select! {
        biased;
        reason = live.cut() => Err(FlowError::Revoked(reason)),
        result = work => Ok(result),
    }
}

/// Both directions of a leg have ended in order: it is not reset.
fn close(leg: &TcpStream) -> Result<(), FlowError> {
    sockopt::close_gracefully(leg).map_err(FlowError::Close)
}
