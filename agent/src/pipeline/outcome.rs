//! What is counted and logged of a flow, and why it ended early.

use std::io;
use std::net::SocketAddr;

use sheath_common::workload::WorkloadId;

use super::Pipeline;
use super::flow::FlowLog;
use crate::capture::{LocalLegError, unreachable_errno};
use crate::credentials::NoIdentity;
use crate::flow::{Direction, FlowRecord, Outcome, Stage};
use crate::limits::QuotaExceeded;
use crate::origin::Origin;
use crate::policy::PolicyError;
use crate::relay::RelayError;
use crate::services::NoEndpoint;
use crate::sessions::{NotReopened, Revoked};
use crate::telemetry::{Ending, RefusedBy};
use crate::tls::TlsError;
use crate::wire::{NotAccepted, RefusalCode, WireError};

impl Pipeline {
    /// A flow between a source and a destination, with what is known from the start.
    pub(super) fn begin(
        &self,
        direction: Direction,
        workload: WorkloadId,
        (source, destination): (SocketAddr, SocketAddr),
    ) -> FlowLog {
        let mut record = FlowRecord::new(self.ids.next(), direction, source, destination);
        if let Some(config) = self.published.policy.load().workload(workload) {
            record.workload.clone_from(&config.name);
        }
        FlowLog { record: Box::new(record), open: self.counters.open(workload, direction) }
    }
}

impl FlowLog {
    /// The flow is over.
    pub(super) fn conclude(mut self, result: Result<(), FlowError>) {
        if let Err(FlowError::Moved) = result {
            // Who has it now will log it.
            return self.open.moved();
        }
        if let Err(error) = &result {
            if let FlowError::Tls(error) = error {
                self.record.peer_id = error.peer();
            }
            if let Some(rule) = error.rule() {
                self.has_rule(Some(rule));
            }
        }
        let ending = match result {
            Ok(()) => Ending {
                outcome: Outcome::Ok,
                stage: Stage::Relay,
                reason: String::new(),
                refused: None,
            },
            Err(error) => error.into(),
        };
        self.open.conclude(&self.record, &ending);
    }
}

/// Why a flow ended early.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// No endpoint of the Service at the destination may be called.
    #[error(transparent)]
    Service(Box<NoEndpoint>),
    #[error(transparent)]
    Limit(#[from] QuotaExceeded),
    #[error(transparent)]
    NoIdentity(#[from] NoIdentity),
    #[error("destination: {0}")]
    DialWire(io::Error),
    #[error("local application: {0}")]
    DialApp(LocalLegError),
    #[error("first bytes: {0}")]
    FirstBytes(io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// By the peer, on a session that was open already.
    #[error("peer: {0}")]
    NotAccepted(RefusalCode),
    /// By an endpoint of a Service, on a new session.
    #[error("{0}")]
    NotTaken(NotReopened),
    #[error("the session ended before a flow was opened")]
    NoFlow,
    /// What made the session good is gone.
    #[error("session cut: {0}")]
    Revoked(#[from] Revoked),
    #[error("close: {0}")]
    Close(io::Error),
    /// It goes on in another process.
    #[error("taken over by the next process of the agent")]
    Moved,
    #[error("the flow's thread cannot take the connection: {0}")]
    Settle(io::Error),
}

impl FlowError {
    /// The rule that refuses the flow, if a rule does.
    #[must_use]
    pub fn rule(&self) -> Option<&Origin> {
        match self {
            Self::Policy(error) => error.rule(),
            Self::Tls(error) => error.refusal()?.rule.as_ref(),
            Self::Revoked(revoked) => revoked.rule(),
            _ => None,
        }
    }

    /// The code for a client whose flow was not accepted for this reason. The client's agent remembers for a while that an
    /// application is unreachable, so that code is not used where this agent itself lacks something.
    #[must_use]
    pub fn refusal(&self) -> RefusalCode {
        match self {
            Self::DialApp(error) if error.is_unreachable() => RefusalCode::UNREACHABLE,
            _ => RefusalCode::INTERNAL,
        }
    }

    /// Of a flow that an endpoint of a Service has not taken.
    #[must_use]
    pub fn not_taken(reason: NotReopened) -> Self {
        match reason {
            // As if it was not waited for.
            NotReopened::NotAccepted(NotAccepted::Over(code)) => {
                RelayError::Wire(WireError::NotTaken(code)).into()
            }
            reason => Self::NotTaken(reason),
        }
    }

    /// True if nobody was reached who would take the flow, and nothing was read from the application: another endpoint may take
    /// it.
    #[must_use]
    pub fn is_unreached(&self) -> bool {
        match self {
            Self::DialWire(_) | Self::Tls(TlsError::Io(_) | TlsError::Timeout(_)) => true,
            Self::NotTaken(NotReopened::NotAccepted(NotAccepted::Refused(code)))
            | Self::NotAccepted(code) => *code != RefusalCode::NOT_ALLOWED,
            Self::NotTaken(_) | Self::Relay(RelayError::Wire(WireError::NotTaken(_))) => true,
            _ => false,
        }
    }

    /// By what the flow was refused. `None` if it has only failed, or ended early.
    fn refused_by(&self) -> Option<RefusedBy> {
        let far_end =
            |code: RefusalCode| (code == RefusalCode::NOT_ALLOWED).then_some(RefusedBy::FarEnd);
        match self {
            Self::Policy(_) => Some(RefusedBy::Policy),
            Self::Revoked(revoked) => match revoked {
                Revoked::Strict | Revoked::Required | Revoked::Policy(_) => Some(RefusedBy::Policy),
                Revoked::NoIdentity => Some(RefusedBy::Identity),
                Revoked::Peer(_) | Revoked::Expired => Some(RefusedBy::Peer),
                Revoked::WorkloadGone | Revoked::Unwatched => None,
            },
            Self::Service(_) => Some(RefusedBy::Service),
            Self::NoIdentity(_) | Self::Tls(TlsError::Setup(_)) => Some(RefusedBy::Identity),
            Self::Limit(_) => Some(RefusedBy::Limit),
            Self::Tls(TlsError::Io(_) | TlsError::Timeout(_)) => None,
            Self::Tls(_) => Some(RefusedBy::Peer),
            Self::NotAccepted(code)
            | Self::Relay(RelayError::Wire(WireError::Refused(code)))
            | Self::NotTaken(NotReopened::NotAccepted(NotAccepted::Refused(code))) => {
                far_end(*code)
            }
            Self::DialWire(_)
            | Self::DialApp(_)
            | Self::FirstBytes(_)
            | Self::Relay(_)
            | Self::NotTaken(_)
            | Self::NoFlow
            | Self::Close(_)
            | Self::Moved
            | Self::Settle(_) => None,
        }
    }

    /// The errno with which the destination could not be reached, if it is that.
    #[must_use]
    pub fn unreachable(&self) -> Option<i32> {
        match self {
            Self::DialWire(error) => unreachable_errno(error),
            Self::NotAccepted(RefusalCode::UNREACHABLE)
            | Self::Relay(RelayError::Wire(WireError::Refused(RefusalCode::UNREACHABLE))) => {
                Some(libc::ECONNREFUSED)
            }
            _ => None,
        }
    }
}

impl From<FlowError> for Ending {
    fn from(error: FlowError) -> Self {
        let (outcome, stage) = match &error {
            FlowError::Policy(_) => (Outcome::Denied, Stage::Policy),
            FlowError::Service(error) => (of_service(error), Stage::Policy),
            FlowError::NoIdentity(_) | FlowError::Tls(TlsError::Setup(_)) => {
                (Outcome::Error, Stage::Identity)
            }
            FlowError::Limit(_) => (Outcome::Refused, Stage::Capture),
            FlowError::DialWire(_) => (Outcome::Refused, Stage::Capture),
            FlowError::DialApp(_) => (Outcome::Refused, Stage::Relay),
            FlowError::FirstBytes(_) => (Outcome::Reset, Stage::Tls),
            FlowError::Tls(TlsError::Io(_) | TlsError::Timeout(_)) => (Outcome::Reset, Stage::Tls),
            FlowError::Tls(_) => (Outcome::Denied, Stage::Tls),
            FlowError::NotAccepted(code)
            | FlowError::Relay(RelayError::Wire(WireError::Refused(code))) => {
                (refusal(*code), Stage::Relay)
            }
            FlowError::NotTaken(NotReopened::NotAccepted(NotAccepted::Refused(code))) => {
                (refusal(*code), Stage::Relay)
            }
            FlowError::NotTaken(_) => (Outcome::Reset, Stage::Relay),
            FlowError::Relay(_) | FlowError::NoFlow => (Outcome::Reset, Stage::Relay),
            FlowError::Revoked(_) => (Outcome::Revoked, Stage::Relay),
            FlowError::Moved => (Outcome::Ok, Stage::Relay),
            FlowError::Close(_) => (Outcome::Error, Stage::Relay),
            FlowError::Settle(_) => (Outcome::Error, Stage::Capture),
        };
        Self { outcome, stage, reason: error.to_string(), refused: error.refused_by() }
    }
}

/// The outcome of a flow to a Service that has no endpoint for it.
fn of_service(error: &NoEndpoint) -> Outcome {
    match error {
        NoEndpoint::NotReady { .. } | NoEndpoint::NotHere { .. } => Outcome::Refused,
        _ => Outcome::Denied,
    }
}

/// The outcome of a flow that the peer does not accept.
fn refusal(code: RefusalCode) -> Outcome {
    if code == RefusalCode::NOT_ALLOWED { Outcome::Denied } else { Outcome::Refused }
}
