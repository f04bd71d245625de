//! The identity stage: which certificate a workload shows, and whom its peers' certificates must chain to.
//!
//! A [`Source`] publishes whole [`Snapshot`]s; a flow takes the current [`Credentials`] and keeps them. Nothing
//! on the data path waits for a source.

mod credentials;
mod embedded_ca;
mod files;
mod renewal;
mod retry;
mod source;
mod spire;
mod svid;

pub use credentials::{Credentials, Held, Identities, NoIdentity};
pub use embedded_ca::{CaError, CaSource, EmbeddedCa, RootState, RootStatus, Roots};
pub use files::{BundleFile, FileSource, IdentityFiles};
pub use retry::Backoff;
pub use source::{Membership, Processes, Source, SourceConfig, Update, Updates, WorkloadRef};
pub use spire::{NotASelector, SpireSelector, SpireSource};
pub use svid::{Snapshot, Svid};
