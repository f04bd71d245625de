//! sockperf: one small message after the other, each answered by one of the same size.

use std::process::Command;

use anyhow::{Context, Result};

use crate::contender::Contender;
use crate::services::PINGPONG;

/// sockperf's client for so many seconds.
pub fn client(contender: &Contender, bytes: u32, seconds: &str) -> Command {
    let to = contender.target(PINGPONG);
    let mut command = contender.client.command("sockperf");
    command.args(["ping-pong", "--tcp", "--full-rtt", "-t", seconds]);
    command.args(["-i", &to.ip().to_string(), "-p", &to.port().to_string()]);
    command.args(["-m", &bytes.to_string()]);
    command
}

/// A percentile of sockperf's output, in microseconds.
pub fn percentile(text: &str, share: &str) -> Result<f64> {
    let start = format!("---> percentile {share} =");
    let value =
        text.lines().find_map(|line| line.split_once(&start)).map(|(_, value)| value.trim());
    let value = value.and_then(|value| value.parse().ok());
    value.with_context(|| format!("sockperf names no percentile {share}: {}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_read_from_sockperfs_lines() {
        let text = "sockperf: Summary: Round trip is 36.604 usec
sockperf: \x1b[2;35mTotal 15057 observations\x1b[0m; each percentile contains 150.57 observations
sockperf: ---> <MAX> observation = 9306.904
sockperf: ---> percentile 99.900 = 4649.865
sockperf: ---> percentile 99.000 =   69.268
sockperf: ---> percentile 50.000 =   20.347
sockperf: ---> <MIN> observation =   15.889
";
        assert_eq!(percentile(text, "50.000").unwrap(), 20.347);
        assert_eq!(percentile(text, "99.000").unwrap(), 69.268);
        assert_eq!(percentile(text, "99.900").unwrap(), 4649.865);
        assert!(percentile(text, "75.000").is_err());
        assert!(percentile("sockperf: No messages were received", "50.000").is_err());
    }
}
