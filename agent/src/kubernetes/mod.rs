//! The Kubernetes API: how it is reached and followed, and its objects as plain values that hold only what is valid.

mod bypassed;
mod client;
mod decision;
mod endpoint_slice;
mod identity;
mod namespace;
mod pod;
mod probes;
mod protection;
mod rollout;
mod service;
mod service_cidr;
mod table;
mod watch;
pub(crate) mod words;

pub use bypassed::{BypassedService, NotAServiceName};
pub use client::{Access, ClientError, Connection, Contact};
pub use decision::{Decision, Rules, Undecided, Unsupported, least};
pub use endpoint_slice::{Conditions, Endpoint, EndpointSlice, NotAnEndpointSlice, SlicePort};
pub use identity::spiffe_id;
pub use namespace::Namespace;
pub use pod::{Lifetime, NotAPod, Pod};
pub use protection::{LABEL, NotAProtection, Protection, Wish};
pub use rollout::{Rollout, RolloutError, rollout};
pub use service::{NotAService, Service, ServiceName, ServicePort};
pub use service_cidr::ranges_of;
pub use table::Table;
pub use watch::{Change, WatchProblem, follow};
pub use words::{is_object_name, object_name};

#[cfg(test)]
pub(crate) mod testing;
