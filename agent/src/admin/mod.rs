//! The admin interface: a Unix socket for root alone, and what it says.
//!
//! The protocol is one line in, one JSON document out: `status` is answered with a [`Status`], `certs` with a
//! [`CertificatesView`](crate::control::CertificatesView), and `reload` with what came of it.

mod client;
mod render;
mod server;
mod status;

pub use client::{AskError, Question, ask};
pub use render::{are_well, is_well, render_certificates, render_status};
pub use server::{Planes, Server};
pub use status::{AgentInfo, Status};
