//! One application connection, end to end: its name, and what is told about it when it is over.

mod peer_id;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sheath_common::flow::{Asked, Owner};

use crate::origin::Origin;

pub use peer_id::{NoPeerId, PeerId};

/// Names a flow in every log line. Unique within one run of an agent, and kept by a flow that goes to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlowId {
    run: u32,
    number: u64,
}

/// Gives out flow ids.
#[derive(Debug)]
pub struct FlowIds {
    run: u32,
    next: AtomicU64,
}

impl FlowIds {
    /// `run` should differ from one start of the agent to the next.
    #[must_use]
    pub fn new(run: u32) -> Self {
        Self { run, next: AtomicU64::new(1) }
    }

    pub fn next(&self) -> FlowId {
        FlowId { run: self.run, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.run, self.number)
    }
}

/// What the wire leg of an outbound flow takes over from the application's socket: its owner, and the socket options that were
/// set when `connect()` was called. Routes may depend on them, so a session is never reused with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inherited {
    pub owner: Owner,
    pub asked: Asked,
}

/// A side of a connection: the one that opens it, or the one that accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    Client,
    Server,
}

/// As seen from the workload. The order is part of the format of saved flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    Outbound,
    Inbound,
}

impl Direction {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// The stages of a flow, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Capture,
    Policy,
    Identity,
    Tls,
    Relay,
}

impl Stage {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Policy => "policy",
            Self::Identity => "identity",
            Self::Tls => "tls",
            Self::Relay => "relay",
        }
    }
}

/// How a flow's bytes cross the wire. The order is part of the format of saved flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protection {
    /// They do not, or not yet.
    None,
    /// Mutual TLS.
    Mtls,
    /// TLS in which only the server shows a certificate, as an external peer may have it.
    Tls,
    /// As they are: by a permissive port, or to an endpoint of a Service that nobody protects.
    Plaintext,
    /// As TLS between the applications, by a permissive port.
    Passthrough,
}

impl Protection {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mtls => "mtls",
            Self::Tls => "tls",
            Self::Plaintext => "plaintext",
            Self::Passthrough => "passthrough",
        }
    }
}

/// Parameters of a session, by the TLS library's names. Empty before the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    pub version: &'static str,
    pub suite: &'static str,
    pub group: &'static str,
}

/// Bytes of the application's that have been passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferred {
    /// From the application to its peer.
    pub sent: u64,
    /// From the peer to the application.
    pub received: u64,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both directions ended in order.
    Ok,
    /// Policy denied it, at this end or at the peer's.
    Denied,
    /// The destination could not be reached.
    Refused,
    /// One side broke it off.
    Reset,
    /// Policy, trust or identity have changed, and no longer allow it.
    Revoked,
    /// The agent itself failed.
    Error,
}

impl Outcome {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Revoked => "revoked",
            Self::Error => "error",
        }
    }
}

/// A Service, and the endpoint that a flow to it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Its namespace and name.
    pub service: String,
    pub endpoint: SocketAddr,
}

/// What the access log says about a flow; filled in as it goes through the stages.
#[derive(Debug)]
pub struct FlowRecord {
    /// A connection that the kernel refused has none: it never came to the agent.
    pub id: Option<FlowId>,
    pub direction: Direction,
    pub started: Instant,
    pub workload: String,
    pub local_id: Option<PeerId>,
    pub peer_id: Option<PeerId>,
    /// Who opened the connection. One that the kernel refused had no address yet.
    pub source: Option<SocketAddr>,
    /// Where it was opened to.
    pub destination: SocketAddr,
    /// Where it went, if a Service is at the destination.
    pub reached: Option<Reached>,
    /// The rule that allows the flow, or refuses it.
    pub rule: Option<Origin>,
    pub protection: Protection,
    pub negotiated: Negotiated,
    /// Its session had been used by another flow before.
    pub is_reused: bool,
    pub transferred: Transferred,
    /// The process that opened it, where the kernel tells.
    pub pid: Option<u32>,
}

impl FlowRecord {
    #[must_use]
    pub fn new(
        id: FlowId,
        direction: Direction,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Self {
        Self { id: Some(id), source: Some(source), ..Self::unopened(direction, destination) }
    }

    /// Of a connection that the kernel refused to a process of `workload`.
    #[must_use]
    pub fn denied(workload: &str, destination: SocketAddr, pid: u32) -> Self {
        Self {
            workload: workload.to_owned(),
            pid: Some(pid),
            ..Self::unopened(Direction::Outbound, destination)
        }
    }

    fn unopened(direction: Direction, destination: SocketAddr) -> Self {
        Self {
            id: None,
            direction,
            started: Instant::now(),
            workload: String::new(),
            local_id: None,
            peer_id: None,
            source: None,
            destination,
            reached: None,
            rule: None,
            protection: Protection::None,
            negotiated: Negotiated::default(),
            is_reused: false,
            transferred: Transferred::default(),
            pid: None,
        }
    }
}
