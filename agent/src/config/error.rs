//! What can be wrong with a configuration file, said in one line.

use std::path::{Path, PathBuf};

use super::cgroup_paths::CgroupPathError;
use super::consistency::NameError;
use super::controller::ControllerError;
use super::identity::SourceError;
use super::instance::InstanceError;
use super::kubernetes::KubernetesError;
use super::limits::OverLimit;
use super::peers::PeerError;
use super::pods::PodsError;
use super::tls::TlsSettingsError;
use super::words;
use super::workload::WorkloadError;
use crate::desired::Origin;
use crate::spiffe::TrustDomain;
use crate::sys::files::ReadError;
use crate::telemetry::NotAFilter;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: ReadError },
    /// The document does not have the documented form.
    #[error("{}:{line}: {reason}", path.display())]
    Malformed { path: PathBuf, line: u64, reason: String },
    /// The document has the form, but what it says does not fit together.
    #[error("{}: {reason}", path.display())]
    Invalid {
        path: PathBuf,
        /// The text of `cause`, with control characters escaped.
        reason: String,
        cause: Box<Invalid>,
    },
}

/// What does not fit together in a configuration. Each part of the file has errors of its own.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    LogLevel(#[from] NotAFilter),
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error(transparent)]
    CaptureRoot(#[from] CgroupPathError),
    #[error(transparent)]
    Pods(#[from] PodsError),
    #[error(transparent)]
    Controller(#[from] ControllerError),
    #[error(transparent)]
    Sources(#[from] SourceError),
    #[error("trustDomains `{name}`: {error}")]
    TrustDomain { name: TrustDomain, error: TlsSettingsError },
    #[error(transparent)]
    TlsContext(TlsSettingsError),
    #[error("workload `{name}`: {error}")]
    Workload { name: String, error: WorkloadError },
    #[error("{origin}: {error}")]
    Peer { origin: Origin, error: PeerError },
    #[error("external peer `{name}`: {error}")]
    ExternalPeer { name: String, error: PeerError },
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    #[error("it has neither `workloads` nor `kubernetes`, so nothing would be protected")]
    NothingSelected,
    #[error(transparent)]
    Limit(#[from] OverLimit),
}

impl ConfigError {
    pub(super) fn invalid(path: &Path, cause: impl Into<Invalid>) -> Self {
        let cause = Box::new(cause.into());
        Self::Invalid { path: path.to_owned(), reason: printable(&cause.to_string()), cause }
    }

    pub(super) fn malformed(path: &Path, error: &serde_saphyr::Error) -> Self {
        tracing::debug!(%error, "configuration");
        let error = error.without_snippet();
        Self::Malformed {
            path: path.to_owned(),
            line: error.location().map_or(1, |location| location.line()),
            reason: printable(&words::reason(error)),
        }
    }
}

/// Escapes control characters: a quote from the file may hold anything, and a message is one line.
fn printable(text: &str) -> String {
    let escape =
        |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(escape).collect()
}
