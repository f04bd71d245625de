//! An error of any kind, for people.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why a source or a discovery has nothing, or nothing new. Each kind has errors of its own; this holds any of them.
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
    /// Problems are equal if their messages are: the same message is reported once.
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}
