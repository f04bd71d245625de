//! Connections that are opened, used for one byte each way, and closed.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::say::greet;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    pub connections: u64,
    pub seconds: f64,
}

impl Churn {
    /// Reads what [`churn`] has printed.
    ///
    /// # Errors
    /// If the text is something else.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("not a churn's result")?;
        let connections = value["connections"].as_u64().context("no number of connections")?;
        let seconds = value["seconds"].as_f64().context("no seconds")?;
        Ok(Self { connections, seconds })
    }

    fn to_json(self) -> Value {
        json!({"connections": self.connections, "seconds": self.seconds})
    }
}

/// Every connection must succeed: failing is faster.
pub fn churn(to: SocketAddr, concurrency: usize, duration: Duration) -> Result<()> {
    let start = Instant::now();
    let work = || -> io::Result<u64> {
        let mut connections = 0;
        while start.elapsed() < duration {
            greet(to)?;
            connections += 1;
        }
        Ok(connections)
    };
    let connections: io::Result<u64> = thread::scope(|scope| {
        let workers: Vec<_> = (0..concurrency).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|worker| worker.join());
        ended.map(|result| result.unwrap_or_else(|_| Err(io::Error::other("a panic")))).sum()
    });
    let connections = connections.with_context(|| format!("connecting to {to}"))?;
    println!("{}", Churn { connections, seconds: start.elapsed().as_secs_f64() }.to_json());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_was_written_is_read() {
        let churn = Churn { connections: 3_401, seconds: 1.000_25 };
        assert_eq!(Churn::parse(&churn.to_json().to_string()).unwrap(), churn);
        assert!(Churn::parse(r#"{"seconds": 1.0}"#).is_err());
        assert!(Churn::parse("").is_err());
    }
}
