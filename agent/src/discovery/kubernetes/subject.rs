//! Whether a kind of objects is heard of.

use std::time::{Instant, SystemTime};

use crate::follow::Problem;
use crate::kubernetes::{Contact, WatchProblem};
use crate::telemetry::rfc3339;

/// A kind of objects that is followed.
pub struct Subject {
    name: &'static str,
    contact: Contact,
    /// What is wrong, and when that was seen last.
    problem: Option<(Instant, Problem)>,
}

/// Nothing new is heard.
#[derive(Clone, Debug, thiserror::Error)]
enum Unheard {
    #[error("{0}; nothing was heard yet")]
    Never(Problem),
    #[error("{problem}; what is known is as of {}", rfc3339(*since))]
    Since { problem: Problem, since: SystemTime },
}

impl Subject {
    pub fn new(name: &'static str) -> Self {
        Self { name, contact: Contact::default(), problem: None }
    }

    /// Nobody else asks by way of this connection.
    pub fn is_heard_by(&mut self, contact: Contact) {
        self.contact = contact;
        self.problem = None;
    }

    /// The change, unless it is a problem.
    pub fn take<C>(&mut self, change: Result<C, WatchProblem>) -> Option<C> {
        change.map_err(|problem| self.fails(problem)).ok()
    }

    pub fn fails(&mut self, problem: impl Into<Problem>) {
        let problem = problem.into();
        let problem = Problem::from(match self.contact.last() {
            None => Unheard::Never(problem),
            Some((_, since)) => Unheard::Since { problem, since },
        });
        if self.problem.as_ref().is_none_or(|(_, known)| *known != problem) {
            tracing::warn!(of = self.name, %problem, "Kubernetes is not heard; what was known last stays in force");
        }
        self.problem = Some((Instant::now(), problem));
    }

    /// Forgets the problem if there was an answer since.
    pub fn look(&mut self) {
        let last = self.contact.last().map(|(instant, _)| instant);
        if self.problem.as_ref().is_some_and(|(seen, _)| last > Some(*seen)) {
            tracing::info!(of = self.name, "Kubernetes is heard again");
            self.problem = None;
        }
    }

    /// What is wrong, with its subject.
    pub fn problem(&self) -> Option<(String, Problem)> {
        self.problem.as_ref().map(|(_, problem)| (self.name.to_owned(), problem.clone()))
    }
}
