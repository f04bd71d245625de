//! Who may call pods.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{SET, rules};
use super::selector::Selector;
use super::status::Status;
use super::text::{Cidr, IdPatternText, NamespaceName, ObjectNameText};
use super::tls::Pin;

/// Who may call a namespace's pods. A Deny that applies is stronger than any Allow. Once an Allow selects a pod, whoever no
/// Allow names is refused, at every port. Audit refuses nobody: it records whom an Allow in its place would refuse.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sheath.dev",
    version = "v1alpha1",
    kind = "AuthorizationPolicy",
    plural = "authorizationpolicies",
    category = "sheath",
    namespaced,
    status = "Status",
    doc = "Who may call pods, by what callers have proved to be.",
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Ports", type_ = "string", json_path = ".spec.ports"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "self.action != 'Deny' || self.rules.all(rule, has(rule.from.spiffeIds) || has(rule.from.serviceAccounts) || has(rule.from.namespaces) || has(rule.from.cidrs))",
    "rules: a Deny by pins alone keeps nobody out, who only needs another certificate; name identities or addresses",
)])))]
pub struct AuthorizationPolicySpec {
    /// Which pods; without it, all of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Ports that the rules are for; without it, every port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(range(min = 1)), extend("x-kubernetes-list-type" = SET))]
    pub ports: Vec<u16>,
    /// `Allow`, `Deny` or `Audit`.
    pub action: Action,
    /// Callers; one rule suffices.
    #[schemars(length(min = 1, max = 32))]
    pub rules: Vec<RuleSpec>,
}

/// What becomes of callers that a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    Allow,
    Deny,
    Audit,
}

/// Callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// All that is written here must be true of a caller.
    pub from: From,
}

/// What is true of a caller: one entry of each list that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "has(self.spiffeIds) || has(self.serviceAccounts) || has(self.namespaces) || has(self.pins) || has(self.cidrs)",
    "from names nobody; write spiffeIds, serviceAccounts, namespaces, pins or cidrs",
)])))]
pub struct From {
    /// SPIFFE IDs, or `spiffe://<trust domain>/*` for every one of a trust domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = SET))]
    pub spiffe_ids: Vec<IdPatternText>,
    /// Service accounts of this cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    pub service_accounts: Vec<ServiceAccount>,
    /// Namespaces of this cluster: every service account of theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = SET))]
    pub namespaces: Vec<NamespaceName>,
    /// Pinned certificates or keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32))]
    pub pins: Vec<Pin>,
    /// Addresses, as the agent of the called pod sees them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = SET))]
    pub cidrs: Vec<Cidr>,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccount {
    /// Its namespace; without it, that of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NamespaceName>,
    /// Its name.
    pub name: ObjectNameText,
}
