//! Open TLS sessions: those in use are judged again whenever things change, those between flows wait for the next.

mod flows;
mod idle;
mod live;

pub use flows::{FlowSession, NotAccepted, Side, Terms};
pub use idle::{IdleSessions, Route};
pub use live::{Basis, Live, Revision, SessionFacts, Sessions};
