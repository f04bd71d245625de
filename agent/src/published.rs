//! What the control plane hands to the data path: values that are swapped whole, and that are read without a lock.

use std::sync::Arc;

use crate::credentials::Identities;
use crate::directory;
use crate::policy::SharedPolicy;
use crate::services::Chooser;
use crate::sessions::Sessions;

/// The control plane writes it, flows read it.
#[derive(Clone, Debug)]
pub struct Published {
    /// Who is expected where.
    pub policy: SharedPolicy,
    /// Who is where in the cluster.
    pub directory: Arc<directory::Shared>,
    /// Which endpoint of a Service a flow goes to.
    pub services: Arc<Chooser>,
    /// The certificates of each workload.
    pub identities: Arc<Identities>,
    /// Sessions in use, judged again when one of the two above changes.
    pub sessions: Arc<Sessions>,
}
