//! The admin interface: a Unix socket for root alone, and what is said there.
//!
//! The protocol is one line in, one JSON document out: `status` is answered with a [`Status`], `certs` with a
//! [`CertificatesView`](crate::control::CertificatesView), `alive` and `ready` with a [`Health`], `reload` with `{"ok":true}`, and
//! `replace` with the process id of the successor that it has started, as `{"pid":1}`.
//! The answer to what did not work is an object with the key `error`.

mod client;
mod health;
mod render;
mod server;
mod status;

use std::time::Duration;

pub use client::{Request, RequestError};
pub use health::Health;
pub use render::{
    are_well, is_healthy, is_well, render_certificates, render_health, render_status,
};
pub use server::{Planes, PreparedServer, Server};
pub use status::{AgentInfo, Status, Threads};

/// How long an answer may take: a reload may have much to do.
const TIME_LIMIT: Duration = Duration::from_secs(60);
