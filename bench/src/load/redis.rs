//! redis-benchmark: small requests of many clients, one or several at a time.

use anyhow::{Context, Result};

use super::{Figures, Load};
use crate::contender::Contender;
use crate::results::Quantity;
use crate::scale::Scale;
use crate::services::REDIS;

/// So many requests before the first answer is waited for.
pub struct Redis {
    pub pipeline: u32,
}

const SET: &str = "set";
const GET: &str = "get";

/// With pipelining there are so many more requests in the same time.
const PIPELINE_FACTOR: u32 = 8;

impl Load for Redis {
    fn name(&self) -> String {
        match self.pipeline {
            1 => "redis".to_owned(),
            many => format!("redis_pipeline_{many}"),
        }
    }

    fn title(&self) -> String {
        match self.pipeline {
            1 => "redis, 50 clients".to_owned(),
            many => format!("redis, 50 clients, {many} requests at a time"),
        }
    }

    fn quantities(&self) -> &'static [Quantity] {
        const {
            &[
                Quantity { name: GET, title: "GET", unit: "/s" },
                Quantity { name: SET, title: "SET", unit: "/s" },
            ]
        }
    }

    fn play(&self, contender: &Contender, scale: &Scale) -> Result<Figures> {
        let to = contender.target(REDIS);
        let factor = if self.pipeline == 1 { 1 } else { PIPELINE_FACTOR };
        let mut command = contender.client.command("redis-benchmark");
        command.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string()]);
        command.args(["-t", "set,get", "-c", "50", "--csv"]);
        command.args(["-n", &(scale.requests * factor).to_string()]);
        command.args(["-P", &self.pipeline.to_string()]);
        let text = contender.run_client(&mut command)?;
        Ok(vec![(GET, rate(&text, "GET")?), (SET, rate(&text, "SET")?)])
    }
}

/// Requests per second: the second column of redis-benchmark's CSV.
fn rate(csv: &str, test: &str) -> Result<f64> {
    let mut lines = csv.lines().map(|line| line.split(',').map(|field| field.trim_matches('"')));
    let rate = lines.find_map(|mut fields| (fields.next()? == test).then(|| fields.next())?);
    let rate = rate.and_then(|rate| rate.parse().ok());
    rate.with_context(|| format!("redis-benchmark names no rate of {test}: {}", csv.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_from_the_csv() {
        let csv = r#""test","rps","avg_latency_ms","min_latency_ms"
"SET","180180.17","3.420","0.440"
"GET","169491.53","3.776","0.520"
"#;
        assert_eq!(rate(csv, "SET").unwrap(), 180_180.17);
        assert_eq!(rate(csv, "GET").unwrap(), 169_491.53);
        assert!(rate(csv, "INCR").is_err());
        assert!(rate("Could not connect to Redis", "GET").is_err());
    }
}
