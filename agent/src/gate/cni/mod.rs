//! The gate as a chained plugin of CNI (its specification, 1.1.0), for runtimes without NRI: a program that the runtime runs
//! when it makes or removes a pod's network. It changes nothing there. It asks the agent over the gate [socket](super::socket)
//! whether the pod may start, and holds no credentials of its own.

mod away;
mod config;
pub mod conflist;
mod environment;
mod failure;
mod install;
mod plugin;

pub use config::AllowedPod;
pub use environment::{PodArgs, pod_args};
pub use install::{Change, InstallError, Installation};
pub use plugin::run;

/// The name of the program among the plugins, and of the type in their configuration.
pub const PLUGIN: &str = "sheath-cni";
