//! Which pods of its namespace an object is about.

use std::collections::{BTreeMap, BTreeSet};

use super::wrong::{Within, Wrong, at_most, each};
use crate::objects::schema::selector as schema;
use crate::objects::schema::selector::Operator;

/// Labels of a pod.
pub type Labels = BTreeMap<String, String>;

/// Pods, by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Labels,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

impl Selector {
    /// # Errors
    /// If it says nothing, or an operator and its values do not fit.
    pub fn parse(spec: &schema::Selector) -> Result<Self, Wrong> {
        if spec.match_labels.is_empty() && spec.match_expressions.is_empty() {
            return Err(Wrong::new(
                "is empty; leave it out for all pods of the namespace, or write matchLabels or matchExpressions",
            ));
        }
        if let Some(key) = spec.match_labels.keys().find(|key| !is_key(key)) {
            return Err(not_a_key(key).within("matchLabels"));
        }
        for (key, value) in &spec.match_labels {
            check_value(&value.0).within(key).within("matchLabels")?;
        }
        at_most("matchExpressions", &spec.match_expressions, 16)?;
        let labels = spec.match_labels.iter();
        Ok(Self {
            labels: labels.map(|(key, value)| (key.clone(), value.0.clone())).collect(),
            conditions: each("matchExpressions", &spec.match_expressions, condition)?,
        })
    }

    /// True of pods that have all that is wanted.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.conditions.iter().all(|condition| condition.is_met(labels))
    }
}

impl Condition {
    fn is_met(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

fn condition(spec: &schema::Expression) -> Result<Condition, Wrong> {
    if !is_key(&spec.key.0) {
        return Err(not_a_key(&spec.key.0).within("key"));
    }
    let compares = matches!(spec.operator, Operator::In | Operator::NotIn);
    if compares && spec.values.is_empty() {
        return Err(Wrong::new("is missing, and In and NotIn compare with it").within("values"));
    }
    if !compares && !spec.values.is_empty() {
        let wrong = Wrong::new("makes no sense with Exists and DoesNotExist; leave it out");
        return Err(wrong.within("values"));
    }
    each("values", &spec.values, |value| check_value(&value.0))?;
    Ok(Condition {
        key: spec.key.0.clone(),
        operator: spec.operator,
        values: spec.values.iter().map(|value| value.0.clone()).collect(),
    })
}

fn not_a_key(key: &str) -> Wrong {
    Wrong::new(format!("`{key}` is no key of a label, like `app.kubernetes.io/name`"))
}

/// Keys of labels, as `k8s.io/apimachinery/pkg/util/validation` has them.
fn is_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    prefix.is_none_or(|prefix| crate::kubernetes::is_object_name(prefix) && ends_well(prefix))
        && is_label(name)
}

/// # Errors
/// If no label can have the value.
fn check_value(text: &str) -> Result<(), Wrong> {
    match text.is_empty() || is_label(text) {
        true => Ok(()),
        false => Err(Wrong::new(format!(
            "`{text}` is no value of a label: letters, digits, `-`, `_` and `.`, with a letter or a digit at either end"
        ))),
    }
}

/// What the name of a label is, and its value.
fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= 63 && text.bytes().all(allowed) && ends_well(text)
}

/// True if there is a letter or a digit at either end.
fn ends_well(text: &str) -> bool {
    let is_good = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    is_good(text.bytes().next()) && is_good(text.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn selector(spec: Value) -> Result<Selector, Wrong> {
        Selector::parse(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn all_that_is_written_must_be_true() {
        let selector = selector(json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "zone", "operator": "NotIn", "values": ["x"]},
            ],
        }))
        .unwrap();
        let matches = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into()));
            selector.matches(&labels.collect())
        };
        assert!(matches(&[("app", "web"), ("tier", "b")]));
        assert!(matches(&[("app", "web"), ("tier", "b"), ("zone", "y"), ("more", "")]));
        for labels in [
            &[("app", "web")][..],
            &[("app", "web"), ("tier", "c")],
            &[("app", "db"), ("tier", "a")],
            &[("app", "web"), ("tier", "a"), ("old", "")],
            &[("app", "web"), ("tier", "a"), ("zone", "x")],
        ] {
            assert!(!matches(labels), "{labels:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_field() {
        for (spec, said) in [
            (json!({}), "is empty"),
            (json!({"matchLabels": {"a b": ""}}), "matchLabels: `a b` is no key"),
            (json!({"matchLabels": {"a/b/c": ""}}), "matchLabels: `a/b/c` is no key"),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                "matchExpressions[0].values: is missing",
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
                "matchExpressions[0].values: makes no sense",
            ),
        ] {
            let error = selector(spec).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
