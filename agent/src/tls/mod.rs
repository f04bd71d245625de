//! The tls stage: mutual TLS with a workload's certificate. The judge of the peer is asked within the handshake.
//!
//! The wire carries the application's bytes as TLS on the application's own port. What the two sides agree on (ALPN)
//! decides which kind of session it becomes: [`crate::wire::modes`].

mod accept;
pub mod client_hello;
mod configs;
mod connect;
mod detect;
mod error;
mod established;
mod handshake;
mod handshake_context;
mod key_log;
mod library;
mod verifier;

pub use accept::accept;
pub use configs::{SetupError, TlsConfigs};
pub use connect::connect;
pub use detect::{Detected, detect};
pub use error::TlsError;
pub use established::{Established, Proof, negotiated};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
