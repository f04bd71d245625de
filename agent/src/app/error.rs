//! Why an agent does not start, or stops.

use std::io;
use std::time::Duration;

use crate::capture::CaptureError;
use crate::follow::Problem;
use crate::gate::GateError;
use crate::handover::Broken;
use crate::metrics::RegistryError;

/// Why the agent did not start, or stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("sheath must run as root")]
    NotRoot,
    #[error("an agent of the instance `{0}` is already running")]
    AlreadyRunning(String),
    /// It has another successor.
    #[error("the agent of the instance `{instance}` that runs cannot be taken over from: {reason}")]
    NotReplaced { instance: String, reason: String },
    /// They would be refused, and the agent that runs serves them.
    #[error(
        "no identity for {} that the agent which runs can serve, within {}: {}; that agent goes on",
        if *.count == 1 { "a workload".to_owned() } else { format!("{} workloads", .count) },
        humantime::format_duration(*.limit),
        .some.join(", ")
    )]
    Unidentified { count: usize, some: Vec<String>, limit: Duration },
    #[error("the agent that runs does not yield: {0}")]
    NotYielded(Broken),
    #[error("the agent that runs has passed on something else than the lock of the instance")]
    NotTheLock,
    #[error(
        "a successor has ended before it served, and no other has come; this agent ends, to be started anew and look after the \
         node again"
    )]
    Abandoned,
    #[error("{found}; {advice}")]
    Host { found: String, advice: String },
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    #[error("{0} has ended, which it never should; please report this")]
    Ended(&'static str),
    /// A source of identities cannot be opened, or a workload gets no number.
    #[error("{0}")]
    Source(Problem),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error("{0}; please report this")]
    Metrics(#[from] RegistryError),
}

impl StartError {
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}
