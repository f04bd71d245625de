//! What the agent tells about itself: log lines, one access-log line for each flow, and what its data path counts.

mod access_log;
mod counters;
mod time;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

pub use access_log::{Ending, log_denied_connect};
pub use counters::{AgentCounters, OpenFlow};
pub use time::rfc3339;

/// True if what is written there may be coloured: on a terminal, unless the user does not want it (no-color.org).
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_unwanted
}

/// Sets up logging to stderr.
///
/// # Errors
/// If `log.level` is not a filter directive.
pub fn init(config: &LogConfig) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.level)
        .map_err(|_| format!("log.level `{}` is not a filter", config.level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colours(&std::io::stderr()));
    match config.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
