//! The agent's output: log lines, one access-log line for each flow, and what its data path counts.

mod access_log;
mod counters;
mod log;
mod moves;
mod refusals;
mod time;

pub use access_log::{Ending, log_denied_connect};
pub use counters::{AgentCounters, OpenFlow};
pub use log::{LogFormat, LogSettings, NotAFilter, filter, init};
pub use moves::{MoveCounters, NotTaken, Stayed};
pub use refusals::{Refusals, RefusedBy, RefusedConnection, RefusedConnections, RefusedKind};
pub use time::rfc3339;
