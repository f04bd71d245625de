//! What is watched of the API, and when it was last heard of.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::Stream;

use crate::kubernetes::WatchProblem;
use crate::metrics::{Counter, Label, Registry, RegistryError, Scalar};

/// A kind of objects that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objects {
    Pods,
    Namespaces,
    Nodes,
    Services,
    EndpointSlices,
    ServiceRanges,
}

impl Label for Objects {
    const NAME: &'static str = "of";
    const ALL: &'static [Self] = &[
        Self::Pods,
        Self::Namespaces,
        Self::Nodes,
        Self::Services,
        Self::EndpointSlices,
        Self::ServiceRanges,
    ];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Namespaces => "namespaces",
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::ServiceRanges => "servicecidrs",
        }
    }
}

/// One watch.
#[derive(Debug, Default)]
pub struct Watch {
    /// When something was last heard, in seconds since 1970; 0 if never.
    heard: AtomicU64,
    changes: Counter,
    failures: Counter,
}

/// All watches of a replica.
#[derive(Debug, Default)]
pub struct Watches([Arc<Watch>; Objects::ALL.len()]);

impl Watches {
    #[must_use]
    pub fn of(&self, of: Objects) -> &Arc<Watch> {
        &self.0[of.index()]
    }

    /// # Errors
    /// If a name is taken.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) -> Result<(), RegistryError> {
        let own = self.clone();
        registry.register_read_by(
            Scalar::Gauge,
            "watch_age_seconds",
            "Seconds since something was last heard of what is watched. Objects that do not change are not heard of.",
            move |of| own.of(of).age(),
        )?;
        let own = self.clone();
        registry.register_read_by(
            Scalar::Counter,
            "watch_changes",
            "Changes that were heard of, lists included.",
            move |of: Objects| Some(own.of(of).changes.get()),
        )?;
        let own = self.clone();
        registry.register_read_by(
            Scalar::Counter,
            "watch_failures",
            "Times that the API server did not tell what is watched.",
            move |of: Objects| Some(own.of(of).failures.get()),
        )
    }
}

impl Watch {
    fn age(&self) -> Option<u64> {
        let heard = Some(self.heard.load(Ordering::Relaxed)).filter(|heard| *heard != 0)?;
        Some(now().saturating_sub(heard))
    }

    fn heard(&self) {
        self.heard.store(now(), Ordering::Relaxed);
        self.changes.increment();
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The changes of what is watched. Problems are counted, and logged once.
pub struct Heard<S> {
    what: &'static str,
    watch: Arc<Watch>,
    changes: Pin<Box<S>>,
    problem: Option<WatchProblem>,
}

impl<S> Heard<S> {
    #[must_use]
    pub fn new(what: &'static str, watch: &Arc<Watch>, changes: S) -> Self {
        Self { what, watch: watch.clone(), changes: Box::pin(changes), problem: None }
    }
}

impl<S, C> Stream for Heard<S>
where
    S: Stream<Item = Result<C, WatchProblem>>,
{
    type Item = C;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<C>> {
        loop {
            match std::task::ready!(self.changes.as_mut().poll_next(context)) {
                Some(Ok(change)) => {
                    self.watch.heard();
                    self.problem = None;
                    return Poll::Ready(Some(change));
                }
                Some(Err(problem)) => {
                    self.watch.failures.increment();
                    if self.problem.as_ref() != Some(&problem) {
                        let of = self.what;
                        tracing::warn!(of, %problem, "Kubernetes is not heard; what is known stays");
                    }
                    self.problem = Some(problem);
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};

    #[tokio::test]
    async fn changes_pass_and_problems_are_counted() {
        let watches = Arc::new(Watches::default());
        let watch = watches.of(Objects::Nodes);
        assert_eq!(watch.age(), None, "nothing was heard yet");
        let changes =
            [Ok(1), Err(WatchProblem::Unauthorized), Err(WatchProblem::Unauthorized), Ok(2)];
        let passed: Vec<_> = Heard::new("nodes", watch, stream::iter(changes)).collect().await;
        assert_eq!(passed, [1, 2]);
        assert_eq!((watch.changes.get(), watch.failures.get()), (2, 2));
        assert!(watch.age().is_some_and(|age| age < 5));
        let mut registry = Registry::new(|_| None);
        watches.register(&mut registry).unwrap();
        let snapshot = registry.snapshot();
        assert_eq!(snapshot.labelled("watch_failures", "of", "nodes"), 2);
        assert_eq!(snapshot.family("watch_age_seconds").unwrap().series.len(), 1);
    }
}
