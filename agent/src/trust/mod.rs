//! Whom to believe: trust bundles and CRLs of trust domains, pins, expected names, and the judgement of a
//! peer's certificate by them.

mod anchors;
mod bundle;
mod constraints;
mod expectation;
mod judge;
mod path;
mod peer_id;
mod pin;
mod reason;
mod revocation;
mod store;
mod validity;
mod verified;

pub use crate::flow::Role;
pub use anchors::Anchors;
pub use bundle::{BundleError, TrustBundle};
pub use constraints::Violation;
pub use expectation::{Expectation, Names, Proof, Way};
pub use judge::{Judge, Judged, PeerChain, Refusal};
pub use path::PathError;
pub use peer_id::PeerId;
pub use pin::Pin;
pub use reason::reason;
pub use revocation::{OnDoubt, Revocation};
pub use store::{DomainTrust, Trust};
pub use validity::Validity;
pub use verified::VerifiedChains;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
