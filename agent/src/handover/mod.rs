//! The hand-over of an agent to its successor on the same node: new connections are not refused meanwhile, and live ones go on.
//!
//! The successor calls the agent that runs, its predecessor, at a Unix socket of the instance that root alone may use. The
//! predecessor goes on accepting and carrying connections until the successor does. ARCHITECTURE.md, "The hand-over", tells
//! the order of the steps and why nothing is lost in between.
//!
//! [`message`] is what is said, [`connection`] how it gets there. [`Server`], then [`Successor`], is the predecessor's side;
//! [`Predecessor`], then [`Yielded`], is the successor's. What either does in between is [`app`](crate::app)'s.

mod connection;
mod flow;
pub mod message;
mod predecessor;
mod server;
mod sockets;
mod successor;
mod taken;
#[cfg(test)]
mod tests;

/// The option of `sheath run` by which a process is a successor.
pub const TAKE_OVER: &str = "--take-over";

pub use connection::Broken;
pub use flow::{FlowResumer, FlowTaker, GoOn, MovingFlow, Offer};
pub use message::{Introduction, Malformed, Message};
pub use predecessor::{NotCalled, Predecessor, Yielded};
pub use server::{PreparedServer, Server};
pub use successor::{FlowsGiven, Starting, Successor};
pub use taken::TakeOver;
