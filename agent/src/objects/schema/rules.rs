//! Rules in CEL that the API server judges objects by when they are written.

use serde_json::{Value, json};

/// A rule, and what is said to whoever breaks it.
pub type Rule = (&'static str, &'static str);

/// As a schema has them.
pub fn rules(rules: &[Rule]) -> Value {
    let rules = rules.iter().map(|(rule, message)| json!({ "rule": rule, "message": message }));
    Value::Array(rules.collect())
}

/// A list in which nothing is twice.
pub const SET: &str = "set";
/// A list of objects that are told apart by one of their fields.
pub const MAP: &str = "map";
