//! The gate socket: where a program that the runtime runs asks the agent.
//!
//! One request for each connection: a line of JSON, with the sandbox's network namespace as an open file beside it
//! (`SCM_RIGHTS`): a path need not mean the same to both. The answer is a line of JSON. Both have a version.

mod client;
mod messages;
mod server;

pub use client::{AskError, ask};
pub use messages::{Answer, AskedSandbox, Operation, Request};
pub use server::{Asked, Server};

/// Bytes; every request and every answer is shorter.
const LONGEST: usize = 16 << 10;

#[cfg(test)]
mod tests;
