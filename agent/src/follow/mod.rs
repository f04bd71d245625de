//! Shared by sources of identities and discoveries: retries, comparable settings, and reasons for people.

mod backoff;
mod check;
mod comparable;
mod problem;

use std::future::Future;
use std::pin::Pin;

pub use backoff::{Backoff, jitter};
pub use check::Check;
pub use comparable::Comparable;
pub use problem::Problem;

/// The receiver of updates is gone.
#[derive(Debug, thiserror::Error)]
#[error("nobody listens any more")]
pub struct Unfollowed;

/// The work of following something, until nobody listens any more.
pub type Following = Pin<Box<dyn Future<Output = Result<(), Unfollowed>> + Send>>;
