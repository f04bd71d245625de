//! The identity stage: which certificate a workload shows, and whom its peers' certificates must chain to.
//!
//! A [`Source`] publishes whole [`Snapshot`]s; a flow takes the current [`Credentials`](crate::credentials::Credentials) that
//! were made of one, and keeps them. Nothing on the data path waits for a source.

mod controller;
mod embedded_ca;
mod files;
pub mod issuing;
mod renewal;
mod settings;
mod source;
mod spire;
mod svid;

pub use controller::{ControllerSettings, check as check_controller};
pub use embedded_ca::{CaError, CaSettings, EmbeddedCa, RootState, RootStatus, Roots};
pub use files::{BundleFile, IdentityFiles};
pub use settings::{Shared, SourceSettings};
pub use source::{Membership, Processes, Source, Update, Updates, WorkloadRef};
pub use spire::{NotASelector, SpireSelector, SpireSettings};
pub use svid::{Snapshot, Svid};
