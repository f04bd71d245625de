//! What it takes to follow something that others change: sources of identities, and discoveries of what is wanted.

mod backoff;
mod comparable;
mod problem;

use std::future::Future;
use std::pin::Pin;

pub use backoff::{Backoff, jitter};
pub use comparable::Comparable;
pub use problem::Problem;

/// Nobody listens any more.
#[derive(Debug, thiserror::Error)]
#[error("nobody listens any more")]
pub struct Unfollowed;

/// The work of following something, until nobody listens any more.
pub type Following = Pin<Box<dyn Future<Output = Result<(), Unfollowed>> + Send>>;
