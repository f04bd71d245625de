//! What the data path counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sheath_common::workload::WorkloadId;

use super::access_log::{Ending, log_flow};
use super::moves::MoveCounters;
use super::refusals::{Refusals, RefusedConnection};
use crate::flow::{Direction, FlowRecord, Outcome, Stage};
use crate::metrics::{
    Bounds, Counter, Gauge, Histogram, Label, OfWorkloads, PerLabel, Registry, RegistryError,
    Scalar,
};

/// A handshake takes a millisecond or two of computing, the way there and back, and what its peer makes it wait.
const HANDSHAKE: Bounds = Bounds::new(&[
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
]);

/// From one request to a connection that is kept for days.
const FLOW: Bounds = Bounds::new(&[
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_mins(1),
    Duration::from_mins(10),
    Duration::from_hours(1),
    Duration::from_hours(24),
]);

type Count = fn(&AgentCounters) -> &Counter;

/// Names, help texts, and the counters that have no labels.
const COUNTERS: [(&str, &str, Count); 11] = [
    ("flows_opened", "Connections that the agent took up.", |own| &own.flows_opened),
    ("sessions_reused", "Connections that took up a session that was open already.", |own| {
        &own.sessions_reused
    }),
    (
        "sessions_found_dead",
        "Sessions that were kept for another connection, and turned out to be gone.",
        |own| &own.sessions_found_dead,
    ),
    ("inbound_plaintext", "Connections to permissive ports that passed as plaintext.", |own| {
        &own.inbound_plaintext
    }),
    (
        "inbound_passthrough",
        "Connections to permissive ports that passed as TLS between the applications.",
        |own| &own.inbound_passthrough,
    ),
    (
        "outbound_plaintext",
        "Connections to endpoints of Services that nobody protects, which passed as plaintext.",
        |own| &own.outbound_plaintext,
    ),
    (
        "endpoints_replaced",
        "Connections to Services that went to a second endpoint, as the first could not be reached.",
        |own| &own.endpoints_replaced,
    ),
    (
        "strangers",
        "Connections to the agent that were reset because no workload had opened them.",
        |own| &own.strangers,
    ),
    (
        "connections_shed",
        "Connections that were reset because no file descriptor was left.",
        |own| &own.connections_shed,
    ),
    ("flows_moved", "Connections that the next process of the agent has taken over.", |own| {
        &own.moves.moved
    }),
    ("flows_taken", "Connections that were taken over from the process before this one.", |own| {
        &own.moves.taken
    }),
];

/// What the data path counts.
#[derive(Debug)]
pub struct AgentCounters {
    flows_opened: Counter,
    flows_closed: PerLabel<(Direction, Outcome), Counter>,
    flow_seconds: PerLabel<Direction, Histogram>,
    handshakes_failed: PerLabel<Direction, Counter>,
    handshake_seconds: PerLabel<Direction, Histogram>,
    /// Flows that have taken up an open session.
    pub sessions_reused: Counter,
    /// Sessions that were kept for another flow, and turned out to be gone.
    pub sessions_found_dead: Counter,
    pub inbound_plaintext: Counter,
    pub inbound_passthrough: Counter,
    /// Flows to endpoints without protection.
    pub outbound_plaintext: Counter,
    /// Flows that were given a second endpoint.
    pub endpoints_replaced: Counter,
    /// Accepted connections that no workload had opened.
    pub strangers: Counter,
    /// Accepted connections for which there was no descriptor.
    pub connections_shed: Counter,
    pub moves: MoveCounters,
    /// Connections that were refused.
    pub refusals: Arc<Refusals>,
    open: Mutex<HashMap<WorkloadId, Arc<Gauge>>>,
}

impl Default for AgentCounters {
    fn default() -> Self {
        Self {
            flows_opened: Counter::default(),
            flows_closed: PerLabel::default(),
            flow_seconds: PerLabel::new(|| Histogram::new(FLOW)),
            handshakes_failed: PerLabel::default(),
            handshake_seconds: PerLabel::new(|| Histogram::new(HANDSHAKE)),
            sessions_reused: Counter::default(),
            sessions_found_dead: Counter::default(),
            inbound_plaintext: Counter::default(),
            inbound_passthrough: Counter::default(),
            outbound_plaintext: Counter::default(),
            endpoints_replaced: Counter::default(),
            strangers: Counter::default(),
            connections_shed: Counter::default(),
            moves: MoveCounters::default(),
            refusals: Arc::default(),
            open: Mutex::default(),
        }
    }
}

impl AgentCounters {
    /// Registers all of them.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) -> Result<(), RegistryError> {
        for (name, help, counter) in COUNTERS {
            registry.register(name, help, self, counter)?;
        }
        registry.register(
            "flows_closed",
            "Connections that ended, by how they ended.",
            self,
            |own| &own.flows_closed,
        )?;
        registry.register(
            "connections_refused",
            "Connections of workloads, and to them, that were refused, by the reason.",
            &self.refusals,
            |refusals| &refusals.counted,
        )?;
        registry.register("flow_seconds", "How long connections were open.", self, |own| {
            &own.flow_seconds
        })?;
        registry.register(
            "handshakes_failed",
            "Connections that ended before their TLS handshake had succeeded.",
            self,
            |own| &own.handshakes_failed,
        )?;
        registry.register(
            "handshake_seconds",
            "How long TLS handshakes took that succeeded.",
            self,
            |own| &own.handshake_seconds,
        )?;
        registry.register(
            "flows_stayed",
            "Connections that were to go to the next process of the agent and stay, by the reason.",
            self,
            |own| &own.moves.stayed,
        )?;
        registry.register(
            "flows_not_taken",
            "Connections of the process before this one that were not taken over, by the reason.",
            self,
            |own| &own.moves.not_taken,
        )?;
        let counters = self.clone();
        registry.register_by_workload(
            Scalar::Gauge,
            "flows",
            "Connections that are open.",
            move || {
                let open = counters.open_by_workload();
                let living = open.iter().map(|(workload, flows)| (*workload, flows.get()));
                OfWorkloads { living: living.collect(), gone: 0 }
            },
        )
    }

    /// Counts a flow as open for as long as the result lives.
    #[must_use]
    pub fn open(self: &Arc<Self>, workload: WorkloadId, direction: Direction) -> OpenFlow {
        self.flows_opened.increment();
        self.is_open(workload, direction)
    }

    /// Counts a flow as open, though not as a new one, that was open in another process.
    #[must_use]
    pub fn take(self: &Arc<Self>, workload: WorkloadId, direction: Direction) -> OpenFlow {
        self.moves.taken.increment();
        self.is_open(workload, direction)
    }

    fn is_open(self: &Arc<Self>, workload: WorkloadId, direction: Direction) -> OpenFlow {
        let of_workload = self.open_by_workload().entry(workload).or_default().clone();
        of_workload.increment();
        let outcome = Some(Outcome::Reset);
        OpenFlow { counters: self.clone(), workload, of_workload, direction, outcome }
    }

    /// Flows that are open now.
    #[must_use]
    pub fn flows(&self) -> u64 {
        let closed: u64 = self.flows_closed.iter().map(Counter::get).sum();
        let gone = closed + self.moves.moved.get();
        (self.flows_opened.get() + self.moves.taken.get()).saturating_sub(gone)
    }

    /// Flows of one workload that are open now.
    #[must_use]
    pub fn flows_of(&self, workload: WorkloadId) -> u64 {
        self.open_by_workload().get(&workload).map(|flows| flows.get()).unwrap_or_default()
    }

    /// Forgets workloads that are gone, once none of their flows is open.
    pub fn retain(&self, is_living: impl Fn(WorkloadId) -> bool) {
        // A flow that is open holds its workload's number; another is not opened meanwhile, as that needs the lock.
        self.open_by_workload()
            .retain(|workload, flows| is_living(*workload) || Arc::strong_count(flows) > 1);
    }

    fn open_by_workload(&self) -> MutexGuard<'_, HashMap<WorkloadId, Arc<Gauge>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A flow that is counted as open. If it is dropped without a conclusion, it counts as reset: its legs are.
#[derive(Debug)]
pub struct OpenFlow {
    counters: Arc<AgentCounters>,
    workload: WorkloadId,
    of_workload: Arc<Gauge>,
    direction: Direction,
    /// `None` if it goes on in another process.
    outcome: Option<Outcome>,
}

impl OpenFlow {
    /// Counts how long the flow's handshake takes, if it succeeds.
    ///
    /// # Errors
    /// Those of the handshake.
    pub async fn handshake<T, E>(
        &self,
        handshake: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let done = handshake.await?;
        self.counters.handshake_seconds.of(self.direction).observe(began.elapsed());
        Ok(done)
    }

    /// Counts how the flow ended, and logs it. It is no longer counted as open when the line is written.
    pub fn conclude(mut self, record: &FlowRecord, ending: &Ending) {
        let duration = record.started.elapsed();
        self.counters.flow_seconds.of(self.direction).observe(duration);
        if ending.stage == Stage::Tls {
            self.counters.handshakes_failed.of(self.direction).increment();
        }
        if let Some(by) = ending.refused {
            let (direction, reason) = (self.direction, &*ending.reason);
            let FlowRecord { source, destination, .. } = *record;
            let refused = RefusedConnection { direction, by, source, destination, reason };
            self.counters.refusals.note(self.workload, &refused);
        }
        self.outcome = Some(ending.outcome);
        drop(self);
        log_flow(record, duration, ending);
    }

    /// The flow goes on in another process, which will log it.
    pub fn moved(mut self) {
        self.outcome = None;
    }
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        self.of_workload.decrement();
        match self.outcome {
            Some(outcome) => self.counters.flows_closed.of((self.direction, outcome)).increment(),
            None => self.counters.moves.moved.increment(),
        }
    }
}

impl Label for Direction {
    const NAME: &'static str = "direction";
    const ALL: &'static [Self] = &[Self::Outbound, Self::Inbound];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        self.name()
    }
}

impl Label for Outcome {
    const NAME: &'static str = "outcome";
    const ALL: &'static [Self] =
        &[Self::Ok, Self::Denied, Self::Refused, Self::Reset, Self::Revoked, Self::Error];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        self.name()
    }
}

#[cfg(test)]
mod tests;
