//! A flow on its way through the stages.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sheath_common::workload::WorkloadId;
use tokio::net::TcpStream;

use crate::capture::Namespace;
use crate::credentials::Credentials;
use crate::flow::{FlowRecord, Inherited, Protection};
use crate::limits::Permit;
use crate::origin::Origin;
use crate::relay::IdleTimeouts;
use crate::sessions::{Basis, Revision, SessionFacts, Terms};
use crate::telemetry::OpenFlow;
use crate::tls::Proof;

/// How long each part of a flow may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Dialling a wire leg or a local application.
    pub connect: Duration,
    /// From the first byte of a TLS handshake to its last.
    pub handshake: Duration,
    /// How long a flow may stand still.
    pub idle: IdleTimeouts,
}

/// A connection that a workload has opened.
pub struct Outbound {
    /// Where the workload has opened it.
    pub namespace: Arc<Namespace>,
    pub workload: WorkloadId,
    /// The leg to the application.
    pub app: TcpStream,
    /// The application's end of it; loopback unless the application had bound its socket.
    pub source: SocketAddr,
    /// Where the application has dialled.
    pub destination: SocketAddr,
    /// The endpoint that was chosen, if a Service is at the destination.
    pub reached: Option<SocketAddr>,
    /// One that was chosen before, and could not be reached.
    pub tried: Option<SocketAddr>,
    /// Owner and options of the application's socket.
    pub inherited: Inherited,
    /// Counts the flow in the workload's quota.
    pub permit: Permit,
    /// The state of policy and trust by which the peer will be judged.
    pub revision: Revision,
    /// An idle session turned out to be dead before anything was read for the flow: it needs a new one.
    pub needs_new_session: bool,
}

/// A connection that the network has opened to a workload.
pub struct Inbound {
    /// Where it has arrived.
    pub namespace: Arc<Namespace>,
    pub workload: WorkloadId,
    /// The client, as the application will see it.
    pub client: SocketAddr,
    /// Where it has arrived: an address and port of the workload.
    pub destination: SocketAddr,
    /// Counts the flow in the workload's quota.
    pub permit: Permit,
    /// The state of policy and trust by which the peer was, or will be, judged.
    pub revision: Revision,
}

/// The record of a flow: what is counted and logged of it.
pub struct FlowLog {
    pub record: Box<FlowRecord>,
    /// Counts the flow as open for as long as this lives.
    pub open: OpenFlow,
}

impl Outbound {
    /// Where the wire leg goes.
    pub fn far_end(&self) -> SocketAddr {
        self.reached.unwrap_or(self.destination)
    }

    pub fn facts(&self, basis: Basis) -> SessionFacts {
        let stay = self.namespace.presence(self.workload);
        SessionFacts { workload: self.workload, basis, stay }
    }

    /// How long, and for what, a session of this flow may be reused.
    pub fn terms(&self, credentials: &Credentials) -> Terms {
        terms(&self.namespace, self.workload, credentials, self.revision)
    }
}

impl Inbound {
    pub fn facts(&self, basis: Basis) -> SessionFacts {
        let stay = self.namespace.presence(self.workload);
        SessionFacts { workload: self.workload, basis, stay }
    }

    /// How long, and for what, the session may be reused.
    pub fn terms(&self, credentials: &Credentials) -> Terms {
        terms(&self.namespace, self.workload, credentials, self.revision)
    }
}

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

impl FlowLog {
    pub fn has_identity(&mut self, credentials: &Credentials) {
        self.record.local_id = Some(credentials.svid.name());
    }

    /// The rule that applies to the flow.
    pub fn has_rule(&mut self, rule: Option<&Origin>) {
        self.record.rule = rule.cloned();
    }

    /// The flow has a session, and leaves or comes from this address.
    pub fn has_session(&mut self, source: SocketAddr, proof: &Proof) {
        self.record.source = Some(source);
        self.record.peer_id = Some(proof.peer.clone());
        self.has_rule(Some(&proof.rule));
        self.record.negotiated = proof.negotiated;
        self.record.protection = if proof.is_mutual { Protection::Mtls } else { Protection::Tls };
    }
}

/// Puts a future on the heap. An idle flow must be small: a future that runs only for a moment takes memory only for that moment.
pub fn on_heap<F: Future>(moment: F) -> Pin<Box<F>> {
    Box::pin(moment)
}
