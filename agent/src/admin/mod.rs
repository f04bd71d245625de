//! The admin interface: a Unix socket for root alone, and what it says.
//!
//! The protocol is one line in, one JSON document out: `status` is answered with a [`Status`].

mod client;
mod render;
mod server;
mod status;

pub use client::{AskError, ask_status};
pub use render::render;
pub use server::Server;
pub use status::{AgentInfo, Status};
