//! wrk: requests for a small page over connections that stay open.

use anyhow::{Context, Result, ensure};

use super::names::{P99, RATE};
use super::{Figures, Load};
use crate::contender::Contender;
use crate::results::Quantity;
use crate::scale::Scale;
use crate::services::HTTP;

/// So many clients. At the beginning, each opens a connection of its own and asks at once.
pub struct Http {
    pub clients: u32,
}

impl Load for Http {
    fn name(&self) -> String {
        match self.clients {
            32 => "http".to_owned(),
            clients => format!("http_{clients}"),
        }
    }

    fn title(&self) -> String {
        format!("HTTP, {} clients, connections kept alive", self.clients)
    }

    fn quantities(&self) -> &'static [Quantity] {
        const {
            &[
                Quantity { name: RATE, title: "requests", unit: "/s" },
                Quantity { name: P99, title: "p99", unit: "ms" },
            ]
        }
    }

    fn play(&self, contender: &Contender, scale: &Scale) -> Result<Figures> {
        let mut command = contender.client.command("wrk");
        command.args(["-t", "2", "-c", &self.clients.to_string(), "--latency"]);
        command.args(["-d", &scale.seconds()]);
        // An answer that comes late is a measurement: without this, wrk counts it as an error after two seconds.
        command.args(["--timeout", "30s"]);
        command.arg(format!("http://{}/", contender.target(HTTP)));
        let text = contender.run_client(&mut command)?;
        let errors = text.lines().find(|line| line.contains("errors:") || line.contains("Non-2xx"));
        ensure!(errors.is_none(), "wrk: {}", errors.unwrap_or_default().trim());
        let rate = field(&text, "Requests/sec:").and_then(|rate| rate.parse().ok());
        let p99 = field(&text, "99%").and_then(milliseconds);
        let context = || format!("wrk says something else: {}", text.trim());
        Ok(vec![(RATE, rate.with_context(context)?), (P99, p99.with_context(context)?)])
    }
}

/// What stands behind a line's first word.
fn field<'t>(text: &'t str, first: &str) -> Option<&'t str> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next()? == first).then(|| words.next())?)
}

/// wrk writes `812.00us`, `1.35ms` and `2.01s`.
fn milliseconds(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..unit].parse().ok()?;
    match &text[unit..] {
        "us" => Some(number / 1e3),
        "ms" => Some(number),
        "s" => Some(number * 1e3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_latency_are_read_from_wrks_lines() {
        let text = "Running 1s test @ http://127.0.0.1:5601/
  2 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.10ms  812.00us  20.01ms   91.04%
  Latency Distribution
     50%    0.90ms
     99%    4.35ms
  31041 requests in 1.10s, 38.13MB read
Requests/sec:  28219.51
Transfer/sec:     34.66MB
";
        assert_eq!(field(text, "Requests/sec:"), Some("28219.51"));
        assert_eq!(field(text, "99%").and_then(milliseconds), Some(4.35));
        assert_eq!(field(text, "75%"), None);
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(milliseconds("812.00us"), Some(0.812));
        assert_eq!(milliseconds("2.50s"), Some(2500.0));
        assert_eq!(milliseconds("17"), None);
        assert_eq!(milliseconds("1.2h"), None);
    }
}
