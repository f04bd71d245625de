//! Open TLS sessions: those in use are judged again whenever policy, trust or identities change; those between flows wait
//! for the next.

mod facts;
mod interruption;
mod leg;
mod live;
mod pool;
mod saved;
mod table;

pub use facts::{Basis, SessionFacts};
pub use interruption::{Interruption, Revoked};
pub use leg::{NotReopened, Standing, Terms, WireLeg};
pub use live::{ExpiredPeer, Live, Revision, Sessions};
pub use pool::{IdleSessions, Reuse, Route};
pub use saved::{NotRebuilt, SavedBasis};
