//! Reasons for people, whoever gives them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why what is followed has nothing to give, or nothing new. Each kind has reasons of its own; here they are for people.
#[derive(Clone, Debug)]
pub struct Problem(Arc<dyn Error + Send + Sync>);

impl<E: Error + Send + Sync + 'static> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Problem {
    /// People are told once of what reads the same.
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}
