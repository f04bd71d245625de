//! Set-up of the log.

use anstream::{AutoStream, ColorChoice};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A `tracing` filter directive, as `info` or `sheath=debug`.
    pub level: String,
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// A level that is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log.level `{0}` is not a filter; write it like `info`, or like `warn,sheath=debug`")]
pub struct NotAFilter(String);

/// Sets up logging to stderr.
///
/// # Errors
/// If the level is no filter directive.
pub fn init(settings: &LogSettings) -> Result<(), NotAFilter> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&settings.level)?)
        .with_writer(std::io::stderr)
        .with_ansi(AutoStream::choice(&std::io::stderr()) != ColorChoice::Never);
    match settings.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// # Errors
/// If a level is no filter directive.
pub fn filter(level: &str) -> Result<EnvFilter, NotAFilter> {
    EnvFilter::try_new(level).map_err(|_| NotAFilter(level.to_owned()))
}
