//! What the developer sees of xtask itself. Everything goes to stderr: stdout belongs to the commands run.

use std::env;
use std::io::stderr;
use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
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
    let in_ci = env::var_os("CI").is_some_and(|value| !value.is_empty());
    !in_ci && AutoStream::choice(&stderr()) != ColorChoice::Never
}

const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();

fn paint(style: Style, text: &str) -> String {
    if colours() { format!("{style}{text}{style:#}") } else { text.to_owned() }
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
