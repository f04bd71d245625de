//! Changes of Services on their way from the controller to the agents: `proto/services.proto`.

mod decode;
mod encode;

pub use decode::{Senseless, decode};
pub use encode::encode;

/// Flags of an endpoint's conditions.
const READY: u32 = 1;
const SERVING: u32 = 2;
const TERMINATING: u32 = 4;

#[cfg(test)]
mod tests;
