//! Who pods are, and which other trust domains are believed.

use std::path::PathBuf;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{MAP, rules};
use super::status::Status;
use super::text::{DataKey, ObjectNameText, PeriodText, TrustDomainName};
use crate::trust::OnDoubt;

/// Who the cluster's pods are, and which other trust domains they believe. There is one, called `default`.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sheath.dev",
    version = "v1alpha1",
    kind = "TrustDomain",
    plural = "trustdomains",
    category = "sheath",
    status = "Status",
    doc = "Who the cluster's pods are, and which other trust domains they believe.",
    printcolumn(name = "Trust Domain", type_ = "string", json_path = ".spec.trustDomain"),
    printcolumn(name = "Federated", type_ = "string", json_path = ".spec.trustDomains[*].name"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    (
        "self.trustDomain == oldSelf.trustDomain",
        "trustDomain cannot be changed: every pod would become somebody else; delete the object and make it anew",
    ),
    (
        "!has(self.trustDomains) || self.trustDomains.all(other, other.name != self.trustDomain)",
        "trustDomains names the cluster's own trust domain, which needs no federation",
    ),
])))]
pub struct TrustDomainSpec {
    /// The trust domain of all pods.
    pub trust_domain: TrustDomainName,
    /// The SPIFFE ID of pods. `{trustDomain}`, `{namespace}` and `{serviceAccount}` stand for what they say, each as a whole
    /// segment. The default is `spiffe://{trustDomain}/ns/{namespace}/sa/{serviceAccount}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), extend("x-kubernetes-validations" = rules(&[
        (
            "self.matches('^spiffe://[{]trustDomain[}](/([{]namespace[}]|[{]serviceAccount[}]|[a-zA-Z0-9._-]+))+$')",
            "identityTemplate must be like `spiffe://{trustDomain}/ns/{namespace}/sa/{serviceAccount}`, each of these as a whole segment",
        ),
        (
            "self.split('/').filter(part, part == '{namespace}').size() == 1 && self.split('/').filter(part, part == '{serviceAccount}').size() == 1",
            "identityTemplate needs {namespace} and {serviceAccount}, each once: without them, pods of different accounts would be the same",
        ),
        ("!self.matches('/[.][.]?(/|$)')", "identityTemplate has a segment `.` or `..`, which no SPIFFE ID has"),
    ])))]
    pub identity_template: Option<String>,
    /// Who issues the certificates of pods. The default is `controller`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Issuer>,
    // These rules stand in the place of those of the type.
    /// How long a pod's certificate is good, from `1m` to `8760h`. The default is `24h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^[0-9]+(ms|s|m|h)$') && duration(self) >= duration('60s') && duration(self) <= duration('8760h')",
        "svidTtl must be from `1m` to `8760h`, like `90m` or `24h`",
    )])))]
    pub svid_ttl: Option<PeriodText>,
    /// Other trust domains that pods believe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend(
        "x-kubernetes-list-type" = MAP,
        "x-kubernetes-list-map-keys" = ["name"]
    ))]
    pub trust_domains: Vec<FederatedDomain>,
}

/// Who issues certificates: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "has(self.controller) != has(self.spire)",
    "issuer needs exactly one of controller and spire",
)])))]
pub struct Issuer {
    /// The controller of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerIssuer>,
    /// The SPIRE agent of each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spire: Option<SpireIssuer>,
}

/// The controller. There is nothing to say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ControllerIssuer {}

/// SPIRE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpireIssuer {
    /// The admin socket of the SPIRE agent, on the node.
    #[schemars(length(max = 107), extend("x-kubernetes-validations" = rules(&[(
        "self.startsWith('/') && !self.endsWith('/')",
        "socket must be an absolute path, like `/run/spire/admin/api.sock`",
    )])))]
    pub socket: PathBuf,
}

/// Another trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FederatedDomain {
    /// Its name.
    pub name: TrustDomainName,
    /// The ConfigMap with its authorities and CRLs, in the namespace that Sheath is installed in.
    pub config_map: ObjectNameText,
    /// The key with its authorities, in PEM. The default is `bundle.pem`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<DataKey>,
    /// Its CRLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<ConfigMapCrl>,
}

/// CRLs in a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigMapCrl {
    /// The key of the ConfigMap, in PEM.
    pub key: DataKey,
    /// Certificates whose issuer has no CRL there: `deny` (the default) or `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<OnDoubt>,
    /// CRLs that are past their next update: `deny` (the default) or `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired: Option<OnDoubt>,
}
