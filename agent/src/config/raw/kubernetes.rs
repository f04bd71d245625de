//! The keys about Kubernetes.

use std::path::PathBuf;

use serde::Deserialize;

use super::values::parsed_list;
use crate::desired::Destination;
use crate::gate::GateKind;
use crate::gate::cni::Installation;
use crate::kubernetes::BypassedService;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Kubernetes {
    pub kubeconfig: Option<PathBuf>,
    /// The node's name in the cluster, where `node` is another.
    pub node: Option<String>,
    #[serde(default = "system_namespaces")]
    pub system_namespaces: Vec<String>,
    #[serde(default)]
    pub runtime_classes: Vec<String>,
    #[serde(default, deserialize_with = "parsed_list")]
    pub bypass: Vec<Destination>,
    #[serde(default, deserialize_with = "parsed_list")]
    pub bypass_services: Vec<BypassedService>,
    #[serde(default)]
    pub gate: GateKind,
    pub nri_socket: Option<PathBuf>,
    /// Where the agent keeps the CNI plugin installed.
    pub cni: Option<Installation>,
    pub runtime_handlers: Option<Vec<String>>,
    #[serde(default)]
    pub kubelet: Kubelet,
}

/// Where the kubelet is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kubelet {
    #[default]
    Auto,
    Cgroup(String),
    None,
}

fn system_namespaces() -> Vec<String> {
    ["kube-system", "sheath-system"].map(str::to_owned).into()
}
