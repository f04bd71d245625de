//! sockperf: one small message after the other, each answered by one of the same size.

use std::process::Command;

use anyhow::{Context, Result};

use super::throughput::Background;
use super::{Figures, Load};
use crate::contender::Contender;
use crate::results::Quantity;
use crate::run::Scale;
use crate::services::PINGPONG;

/// Messages of so many bytes, while nothing else happens or while a stream passes beside them.
pub struct PingPong {
    pub bytes: u32,
    pub loaded: bool,
}

pub const P50: &str = "p50";
pub const P99: &str = "p99";
const P999: &str = "p99_9";

/// How much longer the stream beside lasts: sockperf warms up before it measures.
const MARGIN_SECONDS: u64 = 1;

impl Load for PingPong {
    fn name(&self) -> String {
        match self.loaded {
            true => "pingpong_loaded".to_owned(),
            false => format!("pingpong_{}", self.bytes),
        }
    }

    fn title(&self) -> String {
        let beside = if self.loaded { ", beside one stream" } else { "" };
        format!("Round trip of {} bytes{beside}", self.bytes)
    }

    fn quantities(&self) -> &'static [Quantity] {
        const {
            &[
                Quantity { name: P50, title: "p50", unit: "µs" },
                Quantity { name: P99, title: "p99", unit: "µs" },
                Quantity { name: P999, title: "p99.9", unit: "µs" },
            ]
        }
    }

    fn play(&self, contender: &Contender, scale: &Scale) -> Result<Figures> {
        let lasts = scale.duration.as_secs() + MARGIN_SECONDS;
        let stream = self.loaded.then(|| Background::start(contender, lasts)).transpose()?;
        let figures = figures(contender, self.bytes, scale)?;
        if let Some(stream) = stream {
            stream.finish()?;
        }
        Ok(figures)
    }

    fn is_quick(&self) -> bool {
        self.bytes == 100 && !self.loaded
    }
}

fn figures(contender: &Contender, bytes: u32, scale: &Scale) -> Result<Figures> {
    let text = contender.run_client(&mut client(contender, bytes, &scale.seconds()))?;
    let figure = |name, share| Ok((name, percentile(&text, share)?));
    [(P50, "50.000"), (P99, "99.000"), (P999, "99.900")]
        .into_iter()
        .map(|(name, share)| figure(name, share))
        .collect()
}

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
