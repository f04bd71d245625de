//! Connections of workloads that were refused, by the kernel or by the agent: how many, by what, and the last of each kind.
//!
//! Whoever is refused decides how often, and with which words. What is kept is bounded by that: a few kinds for each workload, and of
//! each the last one, cut short.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use sheath_common::workload::{NO_WORKLOAD, NO_WORKLOADS, WorkloadId};

use super::rfc3339;
use crate::flow::Direction;
use crate::metrics::{Counter, Label, PerLabel};

/// Workloads of which this is remembered. All are counted.
const REMEMBERED: usize = 4096;
/// Bytes of a reason.
const LONGEST_REASON: usize = 240;

/// By what a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBy {
    /// The kernel, in `connect()`.
    Connect,
    /// A guard, which has dropped a packet.
    Guard,
    /// Policy, or what the directory says of an address.
    Policy,
    /// The Service at the destination has no endpoint that may be called.
    Service,
    /// The workload cannot prove who it is.
    Identity,
    /// The other end has not proved to be somebody who may be there.
    Peer,
    /// The agent at the other end.
    FarEnd,
    /// The workload has as much as it may.
    Limit,
}

impl Label for RefusedBy {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &[
        Self::Connect,
        Self::Guard,
        Self::Policy,
        Self::Service,
        Self::Identity,
        Self::Peer,
        Self::FarEnd,
        Self::Limit,
    ];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Guard => "guard",
            Self::Policy => "policy",
            Self::Service => "service",
            Self::Identity => "identity",
            Self::Peer => "peer",
            Self::FarEnd => "far_end",
            Self::Limit => "limit",
        }
    }
}

/// A connection that was refused.
#[derive(Clone, Copy, Debug)]
pub struct RefusedConnection<'r> {
    pub direction: Direction,
    pub by: RefusedBy,
    /// Who has opened it, if that is known.
    pub source: Option<SocketAddr>,
    pub destination: SocketAddr,
    /// In words.
    pub reason: &'r str,
}

/// All that are remembered.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Locked for a lookup.
    by_workload: Mutex<HashMap<WorkloadId, Vec<Kind>>>,
    pub(super) counted: PerLabel<(Direction, RefusedBy), Counter>,
}

/// Those of a workload that are alike.
#[derive(Clone, Debug)]
struct Kind {
    direction: Direction,
    by: RefusedBy,
    count: u64,
    source: Option<SocketAddr>,
    destination: SocketAddr,
    reason: Box<str>,
    at: SystemTime,
}

/// Connections of one workload that were refused since the agent has been running. The names of the fields are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedConnections {
    pub count: u64,
    /// Where the last one was to go, why it was refused, and when (RFC 3339).
    pub destination: SocketAddr,
    pub reason: String,
    pub last: String,
    /// The last one first.
    pub kinds: Vec<RefusedKind>,
}

/// Those that are alike, with the last of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedKind {
    pub direction: &'static str,
    pub by: RefusedBy,
    pub count: u64,
    pub source: Option<SocketAddr>,
    pub destination: SocketAddr,
    pub reason: String,
    pub last: String,
    #[serde(skip)]
    pub at: SystemTime,
}

impl Refusals {
    /// Notes a connection that was refused.
    pub fn note(&self, workload: WorkloadId, refused: &RefusedConnection<'_>) {
        let RefusedConnection { direction, by, source, destination, reason } = *refused;
        self.counted.of((direction, by)).increment();
        if workload == NO_WORKLOAD || workload >= NO_WORKLOADS {
            return;
        }
        let mut all = self.all();
        if all.len() >= REMEMBERED && !all.contains_key(&workload) {
            return;
        }
        let kinds = all.entry(workload).or_default();
        let reason = &reason[..reason.floor_char_boundary(LONGEST_REASON)];
        let at = SystemTime::now();
        match kinds.iter_mut().find(|kind| (kind.direction, kind.by) == (direction, by)) {
            Some(kind) => {
                kind.count += 1;
                (kind.source, kind.destination, kind.at) = (source, destination, at);
                if *kind.reason != *reason {
                    kind.reason = reason.into();
                }
            }
            None => {
                let reason = reason.into();
                kinds.push(Kind { direction, by, count: 1, source, destination, reason, at });
            }
        }
    }

    #[must_use]
    pub fn of(&self, workload: WorkloadId) -> Option<RefusedConnections> {
        let mut kinds = self.all().get(&workload)?.clone();
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.at));
        let last = kinds.first()?;
        Some(RefusedConnections {
            count: kinds.iter().map(|kind| kind.count).sum(),
            destination: last.destination,
            reason: last.reason.to_string(),
            last: rfc3339(last.at),
            kinds: kinds.into_iter().map(RefusedKind::from).collect(),
        })
    }

    /// Forgets all workloads but these.
    pub fn retain(&self, is_living: impl Fn(WorkloadId) -> bool) {
        self.all().retain(|workload, _| is_living(*workload));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<WorkloadId, Vec<Kind>>> {
        self.by_workload.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Kind> for RefusedKind {
    fn from(kind: Kind) -> Self {
        let Kind { direction, by, count, source, destination, reason, at } = kind;
        let (direction, last) = (direction.name(), rfc3339(at));
        Self { direction, by, count, source, destination, reason: reason.into(), last, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(by: RefusedBy, port: u16, reason: &str) -> RefusedConnection<'_> {
        let destination = SocketAddr::from(([10, 0, 0, 1], port));
        RefusedConnection { direction: Direction::Outbound, by, source: None, destination, reason }
    }

    #[test]
    fn the_last_of_each_kind_is_remembered_and_all_are_counted() {
        let refusals = Refusals::default();
        for port in 1..=3 {
            refusals.note(7, &refused(RefusedBy::Connect, port, "why"));
        }
        let called = RefusedConnection {
            direction: Direction::Inbound,
            source: Some(([10, 0, 0, 9], 0).into()),
            ..refused(RefusedBy::Guard, 80, "who is that")
        };
        refusals.note(7, &called);
        // Of nobody, and of a pod that is held.
        refusals.note(NO_WORKLOAD, &refused(RefusedBy::Connect, 9, "why"));
        refusals.note(u32::MAX - 3, &refused(RefusedBy::Connect, 9, "why"));
        let seen = refusals.of(7).unwrap();
        assert_eq!((seen.count, seen.destination.port(), &*seen.reason), (4, 80, "who is that"));
        let kinds: Vec<_> = seen.kinds.iter().map(|kind| (kind.direction, kind.count)).collect();
        assert_eq!(kinds, [("inbound", 1), ("outbound", 3)]);
        assert_eq!(seen.kinds[1].destination.port(), 3);
        assert_eq!(refusals.counted.of((Direction::Outbound, RefusedBy::Connect)).get(), 5);
        assert_eq!(refusals.of(u32::MAX - 3), None);
        refusals.retain(|workload| workload != 7);
        assert_eq!(refusals.of(7), None);
    }

    /// Of a pod that has itself refused again and again, each time for other reasons and from elsewhere.
    #[test]
    fn whoever_is_refused_in_many_ways_takes_no_more_memory_for_it() {
        let refusals = Refusals::default();
        for number in 0..10_000_u32 {
            let reason = format!("{number} {}", "ä".repeat(number as usize % 4000));
            let by = RefusedBy::ALL[number as usize % RefusedBy::ALL.len()];
            let port = u16::try_from(number).unwrap();
            let refused = RefusedConnection {
                direction: Direction::ALL[number as usize % 2],
                source: Some(([10, 0, 0, 1], port).into()),
                ..refused(by, port, &reason)
            };
            refusals.note(7, &refused);
        }
        let seen = refusals.of(7).unwrap();
        assert_eq!(seen.count, 10_000);
        assert!(seen.kinds.len() <= 2 * RefusedBy::ALL.len(), "{}", seen.kinds.len());
        assert!(seen.kinds.iter().all(|kind| kind.reason.len() <= LONGEST_REASON));
    }

    #[test]
    fn so_many_workloads_are_remembered_and_those_beyond_are_counted() {
        let refusals = Refusals::default();
        let all = u32::try_from(REMEMBERED).unwrap() + 5;
        for workload in 1..=all {
            refusals.note(workload, &refused(RefusedBy::Limit, 1, "too much"));
        }
        // Those that are known go on.
        refusals.note(1, &refused(RefusedBy::Peer, 1, "stranger"));
        assert_eq!(refusals.all().len(), REMEMBERED);
        assert_eq!(refusals.of(1).map(|seen| seen.count), Some(2));
        assert_eq!(refusals.of(all), None);
        let counted = refusals.counted.of((Direction::Outbound, RefusedBy::Limit)).get();
        assert_eq!(counted, u64::from(all));
    }
}
