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

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sheath_common::flow::ListenerKind;
use sheath_common::workload::{InboundMode, WorkloadId};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::capture::{AcceptedInbound, AcceptedOutbound, FlowStarter, LocalLeg, Namespace};
use crate::config::Timeouts;
use crate::control::Published;
use crate::flow::{Direction, FlowIds, FlowRecord, Outcome, Protection, Stage};
use crate::identity::NoIdentity;
use crate::policy::{Policy, PolicyError};
use crate::relay::{self, RelayError};
use crate::sessions::{Basis, Live, Revision, SessionFacts};
use crate::sys::sockopt;
use crate::telemetry::{AgentCounters, Ending, log_flow};
use crate::tls::{self, Contexts, Greeting, Session, TlsError};

/// Everything a flow needs; shared by all of them.
#[derive(Debug)]
pub struct Pipeline {
    pub published: Published,
    pub counters: Arc<AgentCounters>,
    pub timeouts: Timeouts,
    pub ids: FlowIds,
    pub tasks: TaskTracker,
}

impl Pipeline {
    async fn outbound(
        &self,
        namespace: &Namespace,
        accepted: AcceptedOutbound,
        record: &mut FlowRecord,
    ) -> Result<(), FlowError> {
        let AcceptedOutbound { stream: mut app, app: app_address, destination, workload } =
            accepted;

        let revision = self.published.sessions.revision();
        let target = self.published.policy.load().target_at(destination)?;
        let credentials = self.published.identities.current(workload)?;
        record.local_id = Some(credentials.svid.name());

        let limit = target.connect_timeout().unwrap_or(self.timeouts.connect);
        let wire = namespace
            .dial_wire(app_address, destination, limit)
            .await
            .map_err(FlowError::DialWire)?;
        record.source = wire.local_addr().map_err(FlowError::DialWire)?;
        let session =
            tls::connect(wire, &credentials.contexts, &target, self.timeouts.handshake).await?;
        record_session(record, &session);

        let certificates = session.certificates.clone();
        let basis = Basis::Outbound { target, destination, certificates };
        let live = self.open_session(workload, basis, revision)?;
        let mut wire = session.stream;
        unless_cut(live, relay::run(&mut app, &mut wire, &mut record.moved)).await??;
        close(&app, wire.get_ref().0)
    }

    async fn inbound(
        &self,
        namespace: &Namespace,
        accepted: AcceptedInbound,
        record: &mut FlowRecord,
    ) -> Result<(), FlowError> {
        let AcceptedInbound { stream: wire, client, destination, workload, unproven } = accepted;

        let revision = self.published.sessions.revision();
        let credentials = self.published.identities.current(workload);
        let policy = self.published.policy.load_full();
        if policy.inbound_mode(workload)? == InboundMode::Permissive {
            let contexts = credentials.as_ref().ok().map(|credentials| &credentials.contexts);
            let greeting = greet(&policy, workload, destination.port(), &wire, contexts).await?;
            if let Some(protection) = self.passes_through(greeting) {
                record.protection = protection;
                drop(unproven);
                let live = self.open_session(workload, Basis::Permissive, revision)?;
                let passing = self.pass_through(namespace, wire, client, destination, record);
                return unless_cut(live, passing).await?;
            }
        }
        let credentials = credentials?;
        record.local_id = Some(credentials.svid.name());

        // The contexts were made with the callers that policy allows: the handshake fails for anybody else.
        let session = tls::accept(wire, &credentials.contexts, self.timeouts.handshake).await?;
        drop(unproven);
        record_session(record, &session);

        let certificates = session.certificates.clone();
        let basis = Basis::Inbound { as_agent: session.with_agent, certificates };
        let live = self.open_session(workload, basis, revision)?;
        let mut wire = session.stream;
        let serving = async {
            let mut app = self.dial_app(namespace, client, destination).await?;
            relay::run(&mut app.stream, &mut wire, &mut record.moved).await?;
            close(&app.stream, wire.get_ref().0)
        };
        unless_cut(live, serving).await?
    }

    /// Takes a session up among those that are judged again when things change.
    fn open_session(
        &self,
        workload: WorkloadId,
        basis: Basis,
        revision: Revision,
    ) -> Result<Live, FlowError> {
        let facts = SessionFacts { workload, basis };
        self.published.sessions.open(facts, revision).map_err(FlowError::Revoked)
    }

    /// How a connection to a permissive port passes, if it is not for us.
    fn passes_through(&self, greeting: Greeting) -> Option<Protection> {
        match greeting {
            Greeting::Ours => None,
            Greeting::ForeignTls => {
                self.counters.inbound_passthrough.fetch_add(1, Relaxed);
                Some(Protection::Passthrough)
            }
            Greeting::Plaintext => {
                self.counters.inbound_plaintext.fetch_add(1, Relaxed);
                Some(Protection::Plaintext)
            }
        }
    }

    async fn pass_through(
        &self,
        namespace: &Namespace,
        mut wire: TcpStream,
        client: SocketAddr,
        destination: SocketAddr,
        record: &mut FlowRecord,
    ) -> Result<(), FlowError> {
        let mut app = self.dial_app(namespace, client, destination).await?;
        relay::run(&mut app.stream, &mut wire, &mut record.moved).await?;
        close(&app.stream, &wire)
    }

    async fn dial_app(
        &self,
        namespace: &Namespace,
        client: SocketAddr,
        destination: SocketAddr,
    ) -> Result<LocalLeg, FlowError> {
        namespace
            .dial_app(client, destination, self.timeouts.connect)
            .await
            .map_err(FlowError::DialApp)
    }

    /// A record with what is known from the start.
    fn record(
        &self,
        direction: Direction,
        workload: WorkloadId,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> FlowRecord {
        let mut record = FlowRecord::new(self.ids.next(), direction, source, destination);
        if let Some(config) = self.published.policy.load().workload(workload) {
            record.workload.clone_from(&config.name);
        }
        record
    }

    fn conclude(&self, mut record: FlowRecord, result: Result<(), FlowError>) {
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

/// What capture starts for each connection it accepts: one task, from here to the last byte. Whatever ends it
/// early drops both legs, which resets them.
#[derive(Debug)]
pub struct Starter(pub Arc<Pipeline>);

impl FlowStarter for Starter {
    fn outbound(&self, namespace: Arc<Namespace>, accepted: AcceptedOutbound) {
        let pipeline = self.0.clone();
        let open = pipeline.counters.open(accepted.workload);
        self.0.tasks.spawn(async move {
            let mut record = pipeline.record(
                Direction::Outbound,
                accepted.workload,
                accepted.app,
                accepted.destination,
            );
            let result = pipeline.outbound(&namespace, accepted, &mut record).await;
            drop(open);
            pipeline.conclude(record, result);
        });
    }

    fn inbound(&self, namespace: Arc<Namespace>, accepted: AcceptedInbound) {
        let pipeline = self.0.clone();
        let open = pipeline.counters.open(accepted.workload);
        self.0.tasks.spawn(async move {
            let mut record = pipeline.record(
                Direction::Inbound,
                accepted.workload,
                accepted.client,
                accepted.destination,
            );
            let result = pipeline.inbound(&namespace, accepted, &mut record).await;
            drop(open);
            pipeline.conclude(record, result);
        });
    }

    fn stranger(&self, namespace: &Namespace, kind: ListenerKind, remote: SocketAddr) {
        self.0.counters.strangers.fetch_add(1, Relaxed);
        tracing::debug!(namespace = namespace.inode(), ?kind, %remote, "connection of no workload reset");
    }
}

/// Looks at what a client of a permissive port begins with.
async fn greet(
    policy: &Policy,
    workload: WorkloadId,
    port: u16,
    wire: &TcpStream,
    contexts: Option<&Contexts>,
) -> Result<Greeting, FlowError> {
    let protocols = contexts.map(Contexts::protocols).unwrap_or_default();
    let every_tls = policy.claims_every_tls(workload, port);
    tls::greet(wire, protocols, every_tls).await.map_err(FlowError::Greeting)
}

fn record_session(record: &mut FlowRecord, session: &Session) {
    record.peer_id = Some(session.peer.clone());
    record.negotiated = session.negotiated.clone();
    record.protection = if session.is_mutual { Protection::Mtls } else { Protection::Tls };
}

/// Does something for as long as a session is good. Nothing moves once it is not.
async fn unless_cut<T>(mut live: Live, work: impl Future<Output = T>) -> Result<T, FlowError> {
    tokio::select! {
        biased;
        reason = live.cut() => Err(FlowError::Revoked(reason)),
        result = work => Ok(result),
    }
}

/// Both directions have ended in order; neither leg is reset.
fn close(app: &TcpStream, wire: &TcpStream) -> Result<(), FlowError> {
    sockopt::close_gracefully(app)
        .and_then(|()| sockopt::close_gracefully(wire))
        .map_err(FlowError::Close)
}

/// Why a flow ended early.
#[derive(Debug, thiserror::Error)]
enum FlowError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    NoIdentity(#[from] NoIdentity),
    #[error("destination: {0}")]
    DialWire(io::Error),
    #[error("local application: {0}")]
    DialApp(io::Error),
    #[error("first bytes: {0}")]
    Greeting(io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// What made the session good is gone.
    #[error("session cut: {0}")]
    Revoked(String),
    #[error("close: {0}")]
    Close(io::Error),
}

impl From<FlowError> for Ending {
    fn from(error: FlowError) -> Self {
        let (outcome, stage) = match &error {
            FlowError::Policy(_) => (Outcome::Denied, Stage::Policy),
            FlowError::NoIdentity(_) | FlowError::Tls(TlsError::NoCertificate(_)) => {
                (Outcome::Error, Stage::Identity)
            }
            FlowError::DialWire(_) => (Outcome::Refused, Stage::Capture),
            FlowError::DialApp(_) => (Outcome::Refused, Stage::Relay),
            FlowError::Greeting(_) => (Outcome::Reset, Stage::Tls),
            FlowError::Tls(TlsError::Io(_) | TlsError::Timeout(_)) => (Outcome::Reset, Stage::Tls),
            FlowError::Tls(_) => (Outcome::Denied, Stage::Tls),
            FlowError::Relay(_) => (Outcome::Reset, Stage::Relay),
            FlowError::Revoked(_) => (Outcome::Revoked, Stage::Relay),
            FlowError::Close(_) => (Outcome::Error, Stage::Relay),
        };
        Self { outcome, stage, reason: error.to_string() }
    }
}
