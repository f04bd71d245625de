//! The keys about sources of identities: of the node, and of a workload.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::values::Period;

/// The sources of the node, and the default one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub source: Option<SourceKind>,
    pub ca: Option<EmbeddedCa>,
    pub files: Option<FileTree>,
    pub spire: Option<Spire>,
    pub controller: Option<OfController>,
}

/// The controller as a source: all about it is in the section `controller`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfController {}

/// Kinds of sources of identities.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    Ca,
    Files,
    Spire,
    Controller,
}

impl SourceKind {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Files => "files",
            Self::Spire => "spire",
            Self::Controller => "controller",
        }
    }
}

/// A directory with a subdirectory for each workload, named like it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTree {
    pub dir: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spire {
    pub socket: PathBuf,
}

/// A workload's choice of a source: exactly one of the keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadIdentity {
    pub ca: Option<WorkloadCa>,
    pub files: Option<WorkloadFiles>,
    pub spire: Option<WorkloadSpire>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkloadCa {
    pub svid_ttl: Option<Period>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkloadFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub bundle: Option<PathBuf>,
    #[serde(default)]
    pub allow_readable_key: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpire {
    #[serde(default)]
    pub selectors: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EmbeddedCa {
    pub dir: PathBuf,
    #[serde(default = "default_svid_ttl")]
    pub svid_ttl: Period,
}

fn default_svid_ttl() -> Period {
    Period(Duration::from_secs(24 * 60 * 60))
}
