//! Flows that go from one process of the agent to its successor.

use crate::metrics::{Counter, Label, PerLabel};

/// What is counted of flows that move.
#[derive(Debug, Default)]
pub struct MoveCounters {
    /// Flows that another process has taken.
    pub(super) moved: Counter,
    /// Flows that were another process's.
    pub(super) taken: Counter,
    /// Flows that were to move, and stay.
    pub stayed: PerLabel<Stayed, Counter>,
    /// Flows of another process that were offered, and are not taken.
    pub not_taken: PerLabel<NotTaken, Counter>,
}

/// Why a flow stays that was to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stayed {
    /// Its session is of a kind whose state cannot be saved.
    Unsaved,
    /// There is no descriptor for the copies of its connections.
    Descriptors,
    /// The other process does not take it, or is gone.
    Refused,
}

/// Why a flow of another process is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// Its state is of another version, damaged, or contradicts itself.
    State,
    /// One of its connections cannot be used.
    Connection,
    /// Its workload is not one of this process's.
    Workload,
    /// Its network namespace is not served.
    Namespace,
    /// Its workload has no identity yet by which the peer could be judged.
    Identity,
    /// Its workload has as many flows as it may.
    Limit,
}

impl Label for Stayed {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &[Self::Unsaved, Self::Descriptors, Self::Refused];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::Unsaved => "unsaved",
            Self::Descriptors => "descriptors",
            Self::Refused => "refused",
        }
    }
}

impl Label for NotTaken {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &[
        Self::State,
        Self::Connection,
        Self::Workload,
        Self::Namespace,
        Self::Identity,
        Self::Limit,
    ];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Connection => "connection",
            Self::Workload => "workload",
            Self::Namespace => "namespace",
            Self::Identity => "identity",
            Self::Limit => "limit",
        }
    }
}
