//! How long `connect()` takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::statistics::{median, percentile};

/// What came of it, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    pub median: f64,
    pub p99: f64,
}

impl Times {
    /// Reads what [`take`] has printed.
    ///
    /// # Errors
    /// If the text is something else.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("not a clock's result")?;
        let time = |name: &str| value[name].as_f64().with_context(|| format!("no {name}"));
        Ok(Self { median: time("median")?, p99: time("p99")? })
    }

    fn to_json(self) -> Value {
        json!({"median": self.median, "p99": self.p99})
    }
}

/// Opens connections one after the other. Each is used, so that none of them waits for another's handshake.
pub fn take(to: SocketAddr, count: usize) -> Result<()> {
    let time = || -> std::io::Result<f64> {
        let start = Instant::now();
        let mut stream = TcpStream::connect(to)?;
        let taken = start.elapsed();
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        Ok(taken.as_secs_f64() * 1e6)
    };
    let times: std::io::Result<Vec<f64>> = (0..count).map(|_| time()).collect();
    let times = times.with_context(|| format!("connecting to {to}"))?;
    let (median, p99) = median(&times).zip(percentile(&times, 0.99)).context("no connection")?;
    println!("{}", Times { median, p99 }.to_json());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_was_written_is_read() {
        let times = Times { median: 31.25, p99: 88.5 };
        assert_eq!(Times::parse(&times.to_json().to_string()).unwrap(), times);
        assert!(Times::parse(r#"{"median": 1.0}"#).is_err());
    }
}
