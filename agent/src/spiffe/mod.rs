//! The vocabulary of SPIFFE: IDs, trust domains, X.509-SVIDs and trust bundles, as the standards define them.

mod authorizer;
mod bundle;
mod id;
mod leaf;

pub use authorizer::{Authorizer, Unauthorized};
pub use bundle::{BundleError, TrustBundle};
pub use id::{SpiffeError, SpiffeId, TrustDomain};
pub use leaf::{LeafError, spiffe_id_of};
