//! What the agent tells about itself: log lines, one access-log line for each flow, and counters.

mod access_log;
mod counters;
mod log;
mod time;

use std::io::IsTerminal;

pub use access_log::{Ending, log_denied_connect, log_flow};
pub use counters::{AgentCounters, OpenFlow};
pub use log::{LogFormat, LogSettings, NotAFilter, filter, init};
pub use time::rfc3339;

/// True if what goes there may be coloured: on a terminal, unless somebody has said otherwise (no-color.org).
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_unwanted
}
