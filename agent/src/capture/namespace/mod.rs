//! A network namespace with workloads in it, and what the agent does there.
//!
//! [`Namespace`] is its state. Files below it know one part of that state each ([`ports`], [`presence`], `silent`, `sources`,
//! `watched`). Files above it act on it: [`serve`] opens and closes it, [`accept`] takes connections,
//! [`dial`] makes them.

mod accept;
mod dial;
pub mod existing;
mod listeners;
pub mod local_leg;
mod local_ports;
pub mod owned_sockets;
mod place;
pub mod ports;
mod presence;
mod route;
mod serve;
mod silent;
mod sources;
mod spares;
mod state;
pub mod unreachable;
mod watched;

pub use accept::{AcceptedInbound, AcceptedOutbound, FlowStarter};
pub use listeners::Listeners;
pub use local_leg::ClientName;
pub use place::Place;
pub use state::Namespace;
