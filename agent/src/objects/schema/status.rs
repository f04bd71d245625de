//! What becomes of objects, said in their status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::MAP;

/// What has become of the object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `Accepted`: what is written makes sense, and all that it refers to is there. `Programmed`: every agent that it
    /// concerns acts on this generation. `Conflicted`: another object says something else, and the strictest counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend(
        "x-kubernetes-list-type" = MAP,
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
}

/// The same, of a WorkloadPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadPolicyStatus {
    /// `Accepted`: what is written makes sense, and all that it refers to is there. `Programmed`: every agent that it
    /// concerns acts on this generation. `Conflicted`: another object says something else, and the strictest counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend(
        "x-kubernetes-list-type" = MAP,
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
    /// The pods that it selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
}

/// The same, of a TlsContext.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsContextStatus {
    /// `Accepted`: the Secret is there, and has what is wanted. `Loaded`: its present content is in use; if not, the last
    /// good one is, until it expires.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend(
        "x-kubernetes-list-type" = MAP,
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
    /// When the certificate in use expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub not_after: Option<String>,
    /// SHA-256 of the certificate in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
}

/// How many pods there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PodCounts {
    /// All of them.
    pub selected: u32,
    /// As the policy says.
    pub protected: u32,
    /// On their way there.
    pub pending: u32,
    /// Refused any connection until something is known.
    pub held: u32,
    /// Such as cannot be protected.
    pub unsupported: u32,
}

/// What is true of the object, or is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
    /// Why, in a word.
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Why, in a sentence.
    #[schemars(length(max = 32768))]
    pub message: String,
    /// Since when.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Of which generation of the object it is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}

/// Whether a condition is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}
