//! What the gate tells about itself.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::settings::GateKind;

/// Who asks now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InForce {
    Nri,
    Cni,
    #[default]
    None,
}

/// The gate, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GateStatus {
    pub wanted: GateKind,
    pub in_force: InForce,
    pub nri: NriStatus,
    pub cni: CniStatus,
}

/// The connection to the runtime's NRI.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NriStatus {
    /// Since when the runtime asks; `None` while it does not.
    pub connected_since: Option<SystemTime>,
    /// Name and version, as the runtime says them.
    pub runtime: Option<String>,
    /// How long the runtime waits for an answer.
    pub request_timeout: Option<Duration>,
    /// Why there is no connection, or why the last one ended.
    pub last_error: Option<String>,
    pub connections: u64,
    pub admitted: u64,
    pub not_admitted: u64,
}

/// The gate socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CniStatus {
    pub is_open: bool,
    /// The agent has installed the plugin, and looks after it.
    pub installed: bool,
    /// Why it has not, though it is to.
    pub problem: Option<String>,
    pub admitted: u64,
    pub not_admitted: u64,
    /// When the plugin has last asked about a sandbox.
    pub last_asked: Option<SystemTime>,
}
