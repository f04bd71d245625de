//! The gate: a pod's sandbox does not start before its pod is decided, its network namespace served and its SVID held.
//!
//! The hold in the kernel keeps pods that it does not know from talking; it is gone after a reboot, and it costs a pod refused
//! connections. The gate closes both: the runtime asks before it starts the first container of a pod, and waits. Who asks is
//! [`nri`], a plugin inside the agent, or [`cni`], a program that the runtime runs and that asks over the gate [`socket`]. Who
//! answers is a [`Doorkeeper`]; [`PodStates`] is one, which whoever knows about pods fills in.

pub mod cni;
mod keep;
mod keeper;
pub mod nri;
mod reason;
mod run;
mod sandbox;
mod settings;
pub mod socket;
mod states;
mod status;

pub use keeper::{Admission, Doorkeeper};
pub use reason::{NotAdmitted, Reason};
pub use run::{Gate, GateError};
pub use sandbox::{PodName, Sandbox, SandboxError, SandboxId};
pub use settings::{GateKind, GateSettings};
pub use states::{PodState, PodStates, Sandboxes};
pub use status::{CniStatus, GateStatus, InForce, NriStatus};

/// Sandboxes that the runtime may be asking about, or that are on the node: kubelets run 110 pods by default, and some 500 at
/// most. What is beyond is refused, so that nobody can fill the agent's memory or descriptors.
pub const MAX_SANDBOXES: usize = 4096;
