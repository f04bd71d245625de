//! What the developer sees of xtask itself. Everything goes to stderr: stdout belongs to the commands run.

use std::env;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Does one step of a command: says its name before, and how long it took after.
pub fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("{} {title}", paint(BOLD, "==>"));
    let start = Instant::now();
    let done = work()?;
    eprintln!("    {title}: done in {}", elapsed(start.elapsed()));
    Ok(done)
}

pub fn say(text: &str) {
    eprintln!("{text}");
}

pub fn warn(text: &str) {
    eprintln!("{} {text}", paint(YELLOW, "warning:"));
}

/// Prints the error and its causes on one line.
pub fn error(error: &anyhow::Error) {
    eprintln!("{} {error:#}", paint(RED, "error:"));
}

/// Colours are for people: only on a terminal, not in CI, and not for those who asked for none.
pub fn colours() -> bool {
    let unset = |name| env::var_os(name).is_none_or(|value| value.is_empty());
    stderr().is_terminal() && unset("CI") && unset("NO_COLOR")
}

const BOLD: &str = "1";
const RED: &str = "1;31";
const YELLOW: &str = "1;33";

fn paint(style: &str, text: &str) -> String {
    if colours() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

fn elapsed(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_is_in_seconds_then_in_minutes() {
        assert_eq!(elapsed(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(elapsed(Duration::from_secs(123)), "2 min 03 s");
    }
}
