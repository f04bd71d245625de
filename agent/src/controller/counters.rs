//! What a replica counts.

use std::sync::Arc;

use crate::metrics::{Counter, Gauge, Label, PerLabel, Registry, RegistryError};

/// Everything that is counted where it happens.
#[derive(Debug, Default)]
pub struct Counters {
    pub signed: Counter,
    pub unsigned: PerLabel<Unsigned, Counter>,
    pub refused: PerLabel<Refused, Counter>,
    pub reviews: Counter,
    pub connections: Arc<Gauge>,
    pub connections_refused: Counter,
    pub root_streams: Arc<Gauge>,
    pub directory_streams: Arc<Gauge>,
    pub directory_refused: PerLabel<NotFollowed, Counter>,
    pub observations_slowed: Counter,
    pub events: Counter,
}

/// Why a pod gets no SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    Request,
    NoPod,
    Unsupported,
    TooOften,
    Unanswered,
    Authority,
}

impl Label for Unsigned {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &[
        Self::Request,
        Self::NoPod,
        Self::Unsupported,
        Self::TooOften,
        Self::Unanswered,
        Self::Authority,
    ];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::Request => "bad_request",
            Self::NoPod => "no_such_pod",
            Self::Unsupported => "unsupported_pod",
            Self::TooOften => "too_often",
            Self::Unanswered => "api_server",
            Self::Authority => "no_ca",
        }
    }
}

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    NotLeading,
    Token,
    Account,
    Unbound,
    Gone,
    TooOften,
    Unanswered,
}

impl Label for Refused {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &[
        Self::NotLeading,
        Self::Token,
        Self::Account,
        Self::Unbound,
        Self::Gone,
        Self::TooOften,
        Self::Unanswered,
    ];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::NotLeading => "not_leading",
            Self::Token => "bad_token",
            Self::Account => "other_account",
            Self::Unbound => "token_without_pod",
            Self::Gone => "pod_gone",
            Self::TooOften => "too_often",
            Self::Unanswered => "api_server",
        }
    }
}

/// Why an agent is not told the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFollowed {
    TooOften,
    Replaced,
    TooSlow,
}

impl Label for NotFollowed {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &[Self::TooOften, Self::Replaced, Self::TooSlow];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::TooOften => "too_often",
            Self::Replaced => "replaced",
            Self::TooSlow => "too_slow",
        }
    }
}

/// One of those that a gauge counts, as long as it lives.
#[derive(Debug)]
pub struct Held(Arc<Gauge>);

impl Held {
    #[must_use]
    pub fn of(gauge: &Arc<Gauge>) -> Self {
        gauge.increment();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

impl Counters {
    /// # Errors
    /// If a name is taken.
    pub fn register(self: &Arc<Self>, to: &mut Registry) -> Result<(), RegistryError> {
        to.register("svids_issued", "SVIDs that were issued.", self, |own| &own.signed)?;
        to.register("svids_refused", "SVIDs that were asked for and not issued.", self, |own| {
            &own.unsigned
        })?;
        to.register("calls_refused", "Calls that were not let in.", self, |own| &own.refused)?;
        to.register("token_reviews", "Tokens that the API server was asked about.", self, |own| {
            &own.reviews
        })?;
        to.register("connections", "Connections of clients.", self, |own| &*own.connections)?;
        to.register(
            "connections_refused",
            "Connections that were closed because their address had too many.",
            self,
            |own| &own.connections_refused,
        )?;
        to.register("root_streams", "Agents that are told the roots.", self, |own| {
            &*own.root_streams
        })?;
        to.register("directory_streams", "Agents that are told the directory.", self, |own| {
            &*own.directory_streams
        })?;
        to.register(
            "directory_streams_ended",
            "Streams of the directory that were refused or ended, but for those that agents ended themselves.",
            self,
            |own| &own.directory_refused,
        )?;
        to.register(
            "observations_slowed",
            "Times that a node had to wait because it said too much about its pods.",
            self,
            |own| &own.observations_slowed,
        )?;
        to.register("pod_events", "Events that were made of pods.", self, |own| &own.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in_order<L: Label + PartialEq + std::fmt::Debug>() {
        for (at, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), at, "{label:?}");
        }
    }

    #[test]
    fn everything_can_be_registered_and_is_at_its_place() {
        let counters = Arc::new(Counters::default());
        let mut registry = Registry::new(|_| None);
        counters.register(&mut registry).unwrap();
        is_in_order::<Unsigned>();
        is_in_order::<Refused>();
        is_in_order::<NotFollowed>();
        let held = Held::of(&counters.root_streams);
        assert_eq!(registry.snapshot().total("root_streams"), 1);
        drop(held);
        assert_eq!(registry.snapshot().total("root_streams"), 0);
    }
}
