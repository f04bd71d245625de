//! How the plugin fails: as the runtime reads it (CNI specification, "Error").

use serde::Serialize;

/// Of the specification, and from 100 on our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    IncompatibleVersion = 1,
    Environment = 4,
    Io = 5,
    Decoding = 6,
    InvalidConfig = 7,
    TryAgainLater = 11,
    NotAvailable = 50,
    Refused = 100,
}

/// Something did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// What, in a few words.
    pub what: &'static str,
    /// Why, and what to do.
    pub details: String,
}

impl Failure {
    #[must_use]
    pub fn new(code: Code, what: &'static str, details: impl ToString) -> Self {
        Self { code, what, details: details.to_string() }
    }

    #[must_use]
    pub fn environment(details: impl ToString) -> Self {
        Self::new(Code::Environment, "invalid environment", details)
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self, version: &str) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Error<'e> {
            cni_version: &'e str,
            code: u32,
            msg: &'e str,
            details: &'e str,
        }
        let error = Error {
            cni_version: version,
            code: self.code as u32,
            msg: self.what,
            details: &self.details,
        };
        // Strings and a number cannot fail.
        serde_json::to_string(&error).unwrap_or_default()
    }
}
