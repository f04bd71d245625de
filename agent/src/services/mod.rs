//! Services of the cluster: which endpoint a connection to a Service's address goes to.
//!
//! The agent chooses it, as kube-proxy would: only so is it known whose identity to expect. What kube-proxy 1.37 does is told by
//! `pkg/proxy/topology.go`, `endpointslicecache.go`, `serviceport.go` and `nftables/proxier.go` of Kubernetes.
//!
//! [`Catalogue`] takes Services and EndpointSlices and works out what is at each address and port; [`Services`] is what it
//! publishes; [`Chooser`] chooses.

mod affinity;
mod catalogue;
mod choice;
mod chooser;
mod claims;
mod endpoints;
mod frontend;
mod known;
mod messages;
mod room;
mod tiers;
mod watched;

pub use catalogue::{Catalogue, Change, Node, SliceName};
pub use choice::{Choice, Client, NoEndpoint, Standing};
pub use chooser::Chooser;
pub use endpoints::Backend;
pub use frontend::{Frontend, Notes, Reach, Served, ServicePorts, Services, Stickiness};
pub use messages::{Senseless, decode, encode};
pub use watched::Watched;

#[cfg(test)]
pub(crate) mod testing;
