//! What a label asks for: how the connections of a namespace's pods, or of one pod, are protected.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The label of namespaces and pods.
pub const LABEL: &str = "sheath.dev/protect";

/// How a pod's connections are treated, from the least protection to the most.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// They are left alone.
    #[default]
    False,
    /// Mutual TLS with peers that have it, plaintext with others.
    Prefer,
    /// Mutual TLS, or no connection.
    Require,
}

/// The value of the label is none that Sheath knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the label {LABEL} is `{}`; write `require`, `prefer` or `false`", .0.escape_debug())]
pub struct NotAProtection(pub String);

impl FromStr for Protection {
    type Err = NotAProtection;

    fn from_str(text: &str) -> Result<Self, NotAProtection> {
        match text {
            "require" => Ok(Self::Require),
            "prefer" => Ok(Self::Prefer),
            "false" => Ok(Self::False),
            _ => Err(NotAProtection(text.to_owned())),
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Require => "require",
            Self::Prefer => "prefer",
            Self::False => "false",
        })
    }
}

/// What an object's labels say. A value that nobody understands is kept: whoever wrote it wanted something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// There is no such label.
    #[default]
    Unsaid,
    Said(Protection),
    /// The value, as it was written.
    Unclear(String),
}

impl Wish {
    #[must_use]
    pub fn of(labels: Option<&BTreeMap<String, String>>) -> Self {
        match labels.and_then(|labels| labels.get(LABEL)).map(|value| value.parse()) {
            None => Self::Unsaid,
            Some(Ok(protection)) => Self::Said(protection),
            Some(Err(NotAProtection(text))) => Self::Unclear(text),
        }
    }

    /// # Errors
    /// If the value is none that Sheath knows.
    pub fn protection(&self) -> Result<Protection, NotAProtection> {
        match self {
            Self::Unsaid => Ok(Protection::False),
            Self::Said(protection) => Ok(*protection),
            Self::Unclear(text) => Err(NotAProtection(text.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(LABEL.to_owned(), value.to_owned())])
    }

    #[test]
    fn the_three_values_are_understood_and_no_other() {
        for (text, protection) in [
            ("require", Protection::Require),
            ("prefer", Protection::Prefer),
            ("false", Protection::False),
        ] {
            assert_eq!(Wish::of(Some(&labels(text))), Wish::Said(protection));
            assert_eq!(protection.to_string(), text);
        }
        for text in ["", "true", "Require", "require ", "off"] {
            let wish = Wish::of(Some(&labels(text)));
            assert_eq!(wish, Wish::Unclear(text.to_owned()));
            let error = wish.protection().unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "the label sheath.dev/protect is `{text}`; write `require`, `prefer` or `false`"
                )
            );
        }
    }

    #[test]
    fn without_the_label_nothing_is_asked_for() {
        for labels in [None, Some(&BTreeMap::new())] {
            assert_eq!(Wish::of(labels).protection(), Ok(Protection::False));
        }
    }

    #[test]
    fn more_protection_is_greater() {
        assert!(Protection::Require > Protection::Prefer && Protection::Prefer > Protection::False);
    }
}
