//! How the connections of pods are protected.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{MAP, SET, rules};
use super::selector::Selector;
use super::status::WorkloadPolicyStatus;
use super::text::Destination;
use super::tls::{RULES, with_standard_tls};
use crate::desired::Existing;

/// How the connections of a namespace's pods are protected. Of what several policies say, that of those with a selector
/// counts, and of several such the strictest.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sheath.dev",
    version = "v1alpha1",
    kind = "WorkloadPolicy",
    plural = "workloadpolicies",
    shortname = "wlp",
    category = "sheath",
    namespaced,
    status = "WorkloadPolicyStatus",
    doc = "How the connections of pods are protected: mutual TLS with an identity for each pod, in place.",
    printcolumn(name = "Inbound", type_ = "string", json_path = ".spec.inbound.mode"),
    printcolumn(name = "Outbound", type_ = "string", json_path = ".spec.outbound.mode"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods.selected"),
    printcolumn(name = "Protected", type_ = "integer", json_path = ".status.pods.protected"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "has(self.inbound) || has(self.outbound) || has(self.probes) || has(self.existing)",
    "the policy says nothing; write inbound, outbound, probes or existing",
)])))]
pub struct WorkloadPolicySpec {
    /// Which pods; without it, all of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Connections to the pods. Without it, other policies or the label `sheath.dev/protect` say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound: Option<InboundSpec>,
    /// Connections from the pods. Without it, other policies or the label `sheath.dev/protect` say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound: Option<OutboundSpec>,
    /// Calls of the kubelet to the ports of probes: `auto` lets them in as they are, `refuse` does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// Connections that are older than the policy: `keep` lets them live, `reset` resets them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing: Option<Existing>,
}

/// Connections to a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    (
        "!has(self.ports) || !has(self.portModes) || self.portModes.all(entry, !(entry.port in self.ports))",
        "a port is in ports and in portModes; write it in one of them",
    ),
    (
        "!has(self.tls) || !has(self.tls.ports) || self.mode == 'permissive' || (has(self.portModes) && self.tls.ports.all(port, self.portModes.exists(entry, entry.port == port && entry.mode == 'permissive')))",
        "tls.ports is for permissive ports; on a strict port every client that speaks TLS is answered: leave tls.ports out",
    ),
    (
        "!has(self.tls) || self.mode != 'disabled' || has(self.portModes)",
        "tls makes no sense with mode disabled",
    ),
])))]
pub struct InboundSpec {
    /// `strict`: mutual TLS or a reset. `permissive`: mutual TLS from agents, everything else passes as it came, and is
    /// counted. `disabled`: left alone. It is never less than the label `sheath.dev/protect` asks for.
    pub mode: InboundMode,
    /// Ports that the mode is for; without it, every port. Others are as the label has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(range(min = 1)), extend("x-kubernetes-list-type" = SET))]
    pub ports: Vec<u16>,
    /// Ports with a mode of their own. What is written here holds also where it is less than the label asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend(
        "x-kubernetes-list-type" = MAP,
        "x-kubernetes-list-map-keys" = ["port"]
    ))]
    pub port_modes: Vec<PortMode>,
    /// TLS with clients that have no agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<InboundTls>,
}

/// The mode of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortMode {
    /// The pod's own port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// `strict`, `permissive` or `disabled`.
    pub mode: InboundMode,
}

/// How connections to a pod are treated, from the least protection to the most.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum InboundMode {
    Disabled,
    Permissive,
    Strict,
}

with_standard_tls! {
    /// TLS with clients that have no agent.
    #[schemars(extend("x-kubernetes-validations" = rules(&[&RULES[..], &[(
        "!has(self.certificate) || self.certificate != 'none'",
        "certificate cannot be none: a server has to present one",
    )][..]].concat())))]
    pub struct InboundTls {
        /// Permissive ports on which all TLS ends at the agent.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(min = 1, max = 64), inner(range(min = 1)), extend("x-kubernetes-list-type" = SET))]
        pub ports: Vec<u16>,
    }
}

/// Connections from a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "self.mode != 'disabled' || !has(self.bypass)",
    "bypass makes no sense with mode disabled, which leaves every destination alone",
)])))]
pub struct OutboundSpec {
    /// `require`: peers by mutual TLS, bypasses untouched, anything else refused. `prefer`: peers by mutual TLS or not at
    /// all, anything else untouched. `disabled`: left alone. It is never less than the label `sheath.dev/protect` asks for.
    pub mode: OutboundMode,
    /// Destinations that stay untouched, also where the label asks for protection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = SET))]
    pub bypass: Vec<Destination>,
}

/// How connections from a pod are treated, from the least protection to the most.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OutboundMode {
    Disabled,
    Prefer,
    Require,
}

/// Whether the kubelet reaches the ports of probes in the clear.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Probes {
    #[default]
    Auto,
    Refuse,
}
