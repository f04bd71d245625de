//! The seam between those who ask and those who know.

use std::pin::Pin;
use std::time::Instant;

use super::reason::NotAdmitted;
use super::sandbox::{Sandbox, SandboxId};

/// Whether a sandbox may start.
pub type Admission<'d> = Pin<Box<dyn Future<Output = Result<(), NotAdmitted>> + Send + 'd>>;

/// Decides which sandboxes may start.
pub trait Doorkeeper: Send + Sync {
    /// Answers by `deadline` at the latest, and sooner if more is known. Nothing of the pod has run yet. Who asked may stop
    /// waiting at any time, by dropping the answer.
    fn admit(&self, sandbox: Sandbox, deadline: Instant) -> Admission<'_>;

    /// These sandboxes are on the node, and no others: nobody asked about them.
    fn present(&self, sandboxes: Vec<Sandbox>);

    /// The sandbox has stopped. Its pod may have another one.
    fn gone(&self, sandbox: &SandboxId);
}
