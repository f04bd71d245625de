//! Which gate there is to be.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cni::Installation;

/// Where containerd and CRI-O listen for NRI plugins (containerd/nri, `pkg/api/plugin.go`).
const NRI_SOCKET: &str = "/var/run/nri/nri.sock";

/// Runtime handlers whose pods have their sockets in the node's kernel. The runtime's default has no name.
const HOST_SOCKET_HANDLERS: [&str; 3] = ["", "runc", "crun"];

/// Who asks the agent before a sandbox starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GateKind {
    /// NRI where the runtime answers, and CNI: where it does not, and as long as no agent runs, as after a reboot.
    #[default]
    Auto,
    Nri,
    Cni,
    None,
}

/// The gate's settings, as they are written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct GateSettings {
    pub gate: GateKind,
    pub nri_socket: PathBuf,
    /// Where the agent is to keep the CNI plugin installed, if it is to.
    pub installation: Option<Installation>,
    /// Handlers of runtime classes whose pods can be protected.
    pub host_socket_handlers: Vec<String>,
    /// Pods in the node's network namespace wait as others do. Otherwise one that is not decided in time starts all the same:
    /// the cluster's own parts run like this, and must not depend on Sheath.
    pub hold_host_network: bool,
}

impl Default for GateSettings {
    fn default() -> Self {
        Self {
            gate: GateKind::default(),
            nri_socket: NRI_SOCKET.into(),
            installation: None,
            host_socket_handlers: HOST_SOCKET_HANDLERS.map(str::to_owned).to_vec(),
            hold_host_network: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<GateSettings, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_have_defaults_and_no_unknown_keys() {
        assert_eq!(read("{}").unwrap(), GateSettings::default());
        let text = "gate: cni\nnriSocket: /x\nhostSocketHandlers: [kata]\nholdHostNetwork: true";
        let expected = GateSettings {
            gate: GateKind::Cni,
            nri_socket: "/x".into(),
            installation: None,
            host_socket_handlers: vec!["kata".to_owned()],
            hold_host_network: true,
        };
        assert_eq!(read(text).unwrap(), expected);
        for text in ["gate: maybe", "nri: /x", "gate: NRI"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
