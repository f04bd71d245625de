//! The objects as they are written: one struct per mapping, from which the definitions for the API server are made. Names
//! and meanings are those of the configuration file, wherever it has the same thing.

pub mod authorization_policy;
pub mod external_peer;
mod rules;
pub mod selector;
pub mod status;
pub mod text;
pub mod tls;
pub mod tls_context;
pub mod trust_domain;
pub mod workload_policy;

pub use authorization_policy::{AuthorizationPolicy, AuthorizationPolicySpec};
pub use external_peer::{ExternalPeer, ExternalPeerSpec};
pub use tls_context::{TlsContext, TlsContextSpec};
pub use trust_domain::{TrustDomain, TrustDomainSpec};
pub use workload_policy::{WorkloadPolicy, WorkloadPolicySpec};

/// The group of all kinds.
pub const GROUP: &str = "sheath.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";
