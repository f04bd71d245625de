//! The manual: what Sheath promises, how a flow passes through it, what it excludes and how, and its two specifications.
//!
//! Nothing here is code. `ARCHITECTURE.md` says how the pieces are put together; the README how the agent is run.

pub mod exclusions;
pub mod flow;
pub mod promises;

/// What crosses the wire between agents.
#[doc = include_str!("../../../docs/wire.md")]
pub mod wire {}

/// Identities, trust, and where certificates come from.
#[doc = include_str!("../../../docs/identity.md")]
pub mod identity {}
