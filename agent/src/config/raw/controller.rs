//! The keys about the controller of a cluster.

use std::path::PathBuf;

use serde::Deserialize;

use super::values::parsed_option;
use crate::spiffe::SpiffeId;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Controller {
    pub address: Option<String>,
    #[serde(default = "roots")]
    pub roots: PathBuf,
    #[serde(default, deserialize_with = "parsed_option")]
    pub spiffe_id: Option<SpiffeId>,
    #[serde(default = "token")]
    pub token: PathBuf,
}

/// Where the DaemonSet mounts the ConfigMap `sheath-roots`.
fn roots() -> PathBuf {
    "/etc/sheath/roots/roots.pem".into()
}

/// Where the DaemonSet mounts the projected token.
fn token() -> PathBuf {
    "/var/run/secrets/sheath/token".into()
}
