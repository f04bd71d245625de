//! Authentication: trust bundles and CRLs of trust domains, and what a peer's certificates prove by them.
//!
//! An [`Authenticator`] holds the trust of one workload. A peer is a [`Candidate`] until it has proved by some [`Method`] who it
//! is; then there is an [`Identity`]. Whether it may be at the other end of a flow is another question, which is
//! [asked elsewhere](crate::peer).

mod anchors;
mod authenticator;
mod authorities;
mod bundle;
mod chains;
mod constraints;
mod error;
mod identity;
mod path;
mod pin;
mod reason;
mod revocation;
mod store;
mod validity;
mod verified;

pub use anchors::Anchors;
pub use authenticator::{Authenticator, Candidate, Method, PeerChain};
pub use authorities::Authorities;
pub use bundle::{BundleError, TrustBundle};
pub use chains::Chain;
pub use constraints::Violation;
pub use error::AuthenticationError;
pub use identity::Identity;
pub use path::PathError;
pub use pin::Pin;
pub use reason::reason;
pub use revocation::{CrlError, OnDoubt, Revocation};
pub use store::{DomainTrust, Trust};
pub use validity::Validity;
pub use verified::VerifiedChains;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
