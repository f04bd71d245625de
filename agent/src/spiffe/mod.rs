//! The vocabulary of SPIFFE: IDs, trust domains and X.509-SVIDs, as the standards define them.

mod id;
mod leaf;
mod pattern;

pub use id::{SpiffeError, SpiffeId, TrustDomain};
pub use leaf::{LeafError, spiffe_id_of};
pub use pattern::IdPattern;
