//! What can go wrong between the agent and the kernel.

use std::io;
use std::path::PathBuf;

use sheath_common::workload::MAX_NAME;

use super::allocation::{Damage, Exhausted};

/// What can go wrong between the agent and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("no cgroup v2 hierarchy is mounted")]
    NoCgroup2,
    #[error(
        "this mount namespace hides the host's cgroup v2 hierarchy, as that of `ip netns exec` does"
    )]
    HiddenCgroup2,
    #[error(
        "the cgroup v2 hierarchy on {} is only a part of the host's, as a container sees it",
        path.display()
    )]
    PartOfCgroup2 { path: PathBuf },
    #[error(
        "/sys/fs/bpf is not the host's here, so the programs would go with this mount namespace; mount bpffs on the host"
    )]
    PrivateBpffs,
    #[error("capture.cgroup {} cannot be opened: {error}", path.display())]
    NoCaptureRoot { path: PathBuf, error: io::Error },
    #[error("workload `{workload}` selects the cgroup of the agent itself, {cgroup}")]
    SelectsAgent { workload: String, cgroup: String },
    #[error("cannot mount {kind} on {}: {error}", path.display())]
    Mount { kind: &'static str, path: PathBuf, error: io::Error },
    #[error("cannot load the BPF programs: {0}; `sheath check` tells what the host lacks")]
    Load(String),
    #[error(
        "a BPF program was loaded with another map {name} than the agent's: its pin is not the agent's own"
    )]
    OtherMap { name: String },
    #[error("cannot attach {program} to {target}: {error}{}", hint(.error))]
    Attach { program: &'static str, target: String, error: io::Error },
    #[error(transparent)]
    Ids(#[from] IdError),
    #[error("{what}: {error}")]
    Io { what: &'static str, error: io::Error },
}

impl CaptureError {
    /// For `map_err`: says what was being done.
    pub(crate) fn during(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what, error }
    }
}

/// Why workloads get no numbers.
#[derive(Debug, thiserror::Error)]
pub enum IdError {
    #[error("the table of workload ids {what}: {error}")]
    Table { what: &'static str, error: io::Error },
    #[error(
        "the table of workload ids is damaged, {0}; `sheath cleanup` lets the agent begin anew"
    )]
    Damaged(#[from] Damage),
    #[error(
        "the table of workload ids has been removed from the pins, and sockets may still bear ids that it had given out; `sheath cleanup` lets the agent begin anew"
    )]
    Lost,
    #[error("every workload id has been given out; `sheath cleanup` lets the agent begin anew")]
    Exhausted(#[from] Exhausted),
    #[error("the workload's name `{0}` is longer than {MAX_NAME} bytes")]
    LongName(String),
}

impl IdError {
    /// For `map_err`: says what was being done.
    pub(crate) fn during(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Table { what, error }
    }
}

/// The one cause of a refused link that an operator can do something about.
fn hint(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::EPERM) {
        "; another program may be attached there exclusively (`bpftool cgroup tree` shows it)"
    } else {
        ""
    }
}
