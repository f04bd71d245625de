//! The state of a flow in the relay stage, for another process to go on with.
//!
//! What is read was written by another version of this agent at best, and is checked as if a stranger had sent it. Traffic
//! secrets are in it: it is erased when it is dropped, and neither logged nor written anywhere.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sheath_common::workload::WorkloadId;
use zeroize::Zeroizing;

use crate::flow::{Direction, FlowId, FlowRecord, PeerId, Protection, Reached, Transferred};
use crate::sessions::SavedBasis;
use crate::tls::negotiated;
use crate::wire::plain;
use crate::wire::saved::{Encoded, NotRestored, NotSaved, SavedWire};

/// Version of the format. The wire and the relay have their own.
const VERSION: u16 = 1;

/// The longest state that is read: both directions' largest buffers, and the certificates of the longest handshake.
pub const LONGEST: usize = 1 << 20;

/// A flow as another process needs to know it.
#[derive(Serialize, Deserialize)]
pub struct SavedFlow {
    pub workload: WorkloadId,
    /// Cookie of the network namespace that both legs are in.
    pub namespace: u64,
    pub record: SavedRecord,
    /// What the session rests on.
    pub basis: SavedBasis,
    /// How far both directions have come.
    pub relay: Encoded,
    /// The session.
    pub wire: SavedWire,
}

/// What the access log will say of the flow, as far as it is known by now and cannot be found out again.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedRecord {
    id: Option<FlowId>,
    pub direction: Direction,
    /// How long ago it began.
    lasted: Duration,
    /// Its name: the number may be another's in another configuration.
    pub workload: String,
    /// Identities, as they are shown.
    local_id: Option<String>,
    peer_id: Option<String>,
    source: Option<SocketAddr>,
    destination: SocketAddr,
    /// A Service, by its namespace and name, and its endpoint.
    reached: Option<(String, SocketAddr)>,
    pub protection: Protection,
    /// Version, cipher suite and group.
    negotiated: [String; 3],
    is_reused: bool,
}

impl SavedFlow {
    /// The state in one piece.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, NotSaved> {
        Ok(Encoded::new(VERSION, self)?.to_bytes())
    }

    /// A state that another process has encoded.
    ///
    /// # Errors
    /// If it is too long, of another version, not whole, or contradicts itself. The states of relay and wire in it are looked at
    /// when they are restored.
    pub fn decode(state: &[u8]) -> Result<Self, NotRestored> {
        if state.len() > LONGEST {
            return Err(NotRestored::Contradiction("more bytes than the state of a flow has"));
        }
        let saved: Self = Encoded::from_bytes(state)?.decode(VERSION)?;
        saved.check()?;
        Ok(saved)
    }

    /// A flow that is said to be protected is protected, and by a peer that has proved who it is.
    fn check(&self) -> Result<(), NotRestored> {
        let is_protected = match self.record.protection {
            Protection::Mtls | Protection::Tls => true,
            Protection::Plaintext | Protection::Passthrough => false,
            Protection::None => return Err(NotRestored::Contradiction("a flow without a session")),
        };
        let is_plain = self.wire.mode == plain::MODE.name;
        let fits = match (&self.basis, self.record.direction) {
            (SavedBasis::Outbound { .. } | SavedBasis::Plain { .. }, Direction::Outbound)
            | (SavedBasis::Inbound { .. } | SavedBasis::Permissive, Direction::Inbound) => true,
            (SavedBasis::Outbound { .. } | SavedBasis::Plain { .. }, Direction::Inbound)
            | (SavedBasis::Inbound { .. } | SavedBasis::Permissive, Direction::Outbound) => false,
        };
        let is_called = self.record.direction == Direction::Inbound;
        if is_called && self.record.source.is_none() {
            return Err(NotRestored::Contradiction("a client without an address"));
        }
        if !fits || self.basis.is_proved() != is_protected || is_plain == is_protected {
            return Err(NotRestored::Contradiction("a session that the flow cannot have"));
        }
        Ok(())
    }
}

impl SavedRecord {
    #[must_use]
    pub fn of(record: &FlowRecord) -> Self {
        let shown = |id: &Option<PeerId>| id.as_ref().map(ToString::to_string);
        let negotiated = &record.negotiated;
        Self {
            id: record.id,
            direction: record.direction,
            lasted: record.started.elapsed(),
            workload: record.workload.clone(),
            local_id: shown(&record.local_id),
            peer_id: shown(&record.peer_id),
            source: record.source,
            destination: record.destination,
            reached: record
                .reached
                .as_ref()
                .map(|reached| (reached.service.clone(), reached.endpoint)),
            protection: record.protection,
            negotiated: [negotiated.version, negotiated.suite, negotiated.group].map(str::to_owned),
            is_reused: record.is_reused,
        }
    }

    /// The record, without the rule and the bytes.
    ///
    /// # Errors
    /// If an identity is none.
    pub fn restore(self) -> Result<FlowRecord, NotRestored> {
        let identity = |shown: Option<String>| match shown.map(|shown| shown.parse::<PeerId>()) {
            None => Ok(None),
            Some(Ok(id)) => Ok(Some(id)),
            Some(Err(_)) => Err(NotRestored::Contradiction("an identity that nobody can have")),
        };
        let now = Instant::now();
        let [version, suite, group] = &self.negotiated;
        Ok(FlowRecord {
            id: self.id,
            direction: self.direction,
            // What lies further back than the clock goes is as old as the clock.
            started: now.checked_sub(self.lasted).unwrap_or(now),
            workload: self.workload,
            local_id: identity(self.local_id)?,
            peer_id: identity(self.peer_id)?,
            source: self.source,
            destination: self.destination,
            reached: self.reached.map(|(service, endpoint)| Reached { service, endpoint }),
            rule: None,
            protection: self.protection,
            negotiated: negotiated([version, suite, group]),
            is_reused: self.is_reused,
            transferred: Transferred::default(),
            pid: None,
        })
    }
}
