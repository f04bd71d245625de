//! The objects as plain values that hold only what makes sense. The API server has judged them when they were written, but
//! perhaps by an older definition: everything is looked at again.

pub mod authorization_policy;
pub mod external_peer;
mod object;
pub mod selector;
mod template;
pub mod tls;
pub mod tls_context;
pub mod trust_domain;
pub mod workload_policy;
mod wrong;

pub use authorization_policy::AuthorizationPolicy;
pub use external_peer::ExternalPeer;
pub use object::{Kind, Malformed, Object, ObjectName};
pub use selector::{Labels, Selector};
pub use template::IdentityTemplate;
pub use tls_context::TlsContext;
pub use trust_domain::TrustDomain;
pub use workload_policy::WorkloadPolicy;
pub use wrong::Wrong;
