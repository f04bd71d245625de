//! Open TLS sessions: those in use are judged again whenever policy, trust or identities change; those between flows wait
//! for the next.

mod leg;
mod live;
mod pool;

pub use leg::{NotReopened, Standing, Terms, WireLeg};
pub use live::{Basis, ExpiredPeer, Live, Revision, Revoked, SessionFacts, Sessions};
pub use pool::{IdleSessions, Reuse, Route};
