//! A leader that is new says nothing until it knows enough: whoever asked too early would be told that pods are not protected which
//! are.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::controller::watches::Objects;
use crate::metrics::Label;

/// How long agents that have not said what they see are waited for.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a new leader still has to hear.
#[derive(Debug, Default)]
pub struct Settling {
    /// Kinds of objects of which all are known.
    known: [bool; Objects::ALL.len()],
    /// When all objects of the API were known.
    listed: Option<Instant>,
    /// Nodes whose agents have said what they see.
    reported: HashSet<Arc<str>>,
}

impl Settling {
    /// All objects of a kind are known, or the API server has none of the kind.
    pub fn listed(&mut self, what: Objects, now: Instant) {
        self.known[what.index()] = true;
        if self.known.iter().all(|known| *known) {
            self.listed.get_or_insert(now);
        }
    }

    /// True once all objects are known.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed.is_some()
    }

    /// The agent of a node has said what it sees.
    pub fn reported(&mut self, node: &Arc<str>) {
        self.reported.insert(node.clone());
    }

    /// True if enough is known. `needed` are nodes with pods that are to be protected.
    #[must_use]
    pub fn is_over(&self, now: Instant, needed: impl FnOnce() -> HashSet<Arc<str>>) -> bool {
        self.listed.is_some_and(|listed| {
            now.saturating_duration_since(listed) >= PATIENCE || needed().is_subset(&self.reported)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_listed_and_every_agent_is_heard_or_was_waited_for() {
        let now = Instant::now();
        let [a, b]: [Arc<str>; 2] = ["a", "b"].map(Into::into);
        let needed = || HashSet::from([a.clone(), b.clone()]);
        let mut settling = Settling::default();
        settling.reported(&a);
        settling.reported(&b);
        for what in Objects::ALL.iter().copied().filter(|what| *what != Objects::Namespaces) {
            settling.listed(what, now);
        }
        assert!(!settling.is_over(now + 2 * PATIENCE, needed), "namespaces are not known");
        settling.listed(Objects::Namespaces, now);
        assert!(settling.is_over(now, needed));
        settling.reported.remove(&b);
        assert!(!settling.is_over(now, needed));
        // Once more listed is not listed later.
        settling.listed(Objects::Pods, now + PATIENCE);
        assert!(settling.is_over(now + PATIENCE, needed));
        assert!(settling.is_over(now, HashSet::new));
    }
}
