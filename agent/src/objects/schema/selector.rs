//! Which pods of its namespace an object is about.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::rules;
use super::text::{LabelKey, LabelValue};

/// Pods, by their labels: all that is written here must be true of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "(has(self.matchLabels) && self.matchLabels.size() > 0) || (has(self.matchExpressions) && self.matchExpressions.size() > 0)",
    "selector is empty; leave it out for all pods of the namespace, or write matchLabels or matchExpressions",
)])))]
pub struct Selector {
    /// Labels that a pod has, each with this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub match_labels: BTreeMap<String, LabelValue>,
    /// What is true of a pod's labels besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<Expression>,
}

/// A condition for one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    (
        "!(self.operator in ['In', 'NotIn']) || has(self.values)",
        "values is missing, which the operators In and NotIn compare with",
    ),
    (
        "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values)",
        "values makes no sense with the operators Exists and DoesNotExist; leave it out",
    ),
])))]
pub struct Expression {
    /// The label.
    pub key: LabelKey,
    /// How it is compared. `NotIn` and `DoesNotExist` are also true of a pod without the label.
    pub operator: Operator,
    /// What it is compared with, for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = super::rules::SET))]
    pub values: Vec<LabelValue>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}
