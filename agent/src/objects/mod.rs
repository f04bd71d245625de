//! Policy and external peers as objects of the Kubernetes API: their kinds, what they mean, and what applies to a pod.
//!
//! [`schema`] is what is written, and the API server's definitions are made from it. [`model`] is what it means, one
//! object at a time. [`Objects`] holds all that there are, and [`Effective`] says what they come to for a pod.

mod authorization;
mod bypass;
pub mod convert;
mod definitions;
mod effective;
mod external;
pub mod model;
mod references;
#[allow(clippy::duplicated_attributes, reason = "each column of a kind has a type")]
pub mod schema;
mod set;
mod subject;

pub use authorization::{Authorization, Caller, Proved, Refusal, Ruling};
pub use definitions::{DefinitionError, definitions, yaml as definitions_yaml};
pub use effective::{Clients, Effective, Inbound, Outbound};
pub use external::{AtPlace, ExternalPeers};
pub use references::Unresolved;
pub use set::{Cluster, Objects};
pub use subject::Subject;

#[cfg(test)]
mod tests;
