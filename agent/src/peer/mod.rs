//! Who is at the other end of a flow, and in which TLS: what policy makes, and the tls stage and live sessions use.
//!
//! There are two questions about a peer, one after the other. *Who is it?* is answered by what its certificates prove
//! ([`crate::trust`]). *May it be here?* is answered by an [`Expectation`], which policy makes for each place. A
//! [`Judge`] asks both, at the handshake and whenever trust or policy change.

mod certificate;
mod certificates;
mod decision;
mod expectation;
mod inbound;
mod judge;
mod profile;
mod suites;
mod target;

pub use certificate::{NoCertificate, PresentedCertificate};
pub use certificates::{PeerCertificates, SavedCertificates};
pub use decision::{Allowed, Denial};
pub use expectation::{Alternative, Expectation, Listed, Names, Nobody, Requirement};
pub use inbound::{Inbound, InboundTls};
pub use judge::{Cause, Judge, Judged, Refusal};
pub use profile::{Choice, Profile, ProfileError, Version};
pub use suites::{crypto_provider, curve_names, suite_names};
pub use target::{ExternalPeer, SavedTarget, Target, UidHash};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
