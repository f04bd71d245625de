//! iperf3: as many bytes as will go through.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::contender::Contender;
use crate::services::THROUGHPUT;

/// iperf3's client for so many seconds.
pub fn client(contender: &Contender, seconds: &str, more: &[String]) -> Command {
    let mut command = contender.client.command("iperf3");
    let to = contender.target(THROUGHPUT);
    command.args(["-c", &to.ip().to_string(), "-p", &to.port().to_string()]);
    command.args(["-t", seconds, "-J"]).args(more);
    command
}

/// A stream in the background of something else, from the client to the server.
pub struct Background(Child);

impl Background {
    /// Moves bytes for so many seconds, unless it is dropped before.
    pub fn start(contender: &Contender, seconds: u64) -> Result<Self> {
        let mut command = client(contender, &seconds.to_string(), &[]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().map(Self).context("cannot start iperf3")
    }

    /// Waits for its end. Returns how much has gone through, in Gbit/s.
    pub fn finish(mut self) -> Result<f64> {
        let mut text = String::new();
        let mut stdout = self.0.stdout.take().context("iperf3's output")?;
        std::io::Read::read_to_string(&mut stdout, &mut text).context("iperf3's output")?;
        Ok(Sum::parse(&text)?.bits_per_second / 1e9)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What has been received in all streams.
#[derive(Debug, PartialEq)]
pub struct Sum {
    pub bytes: f64,
    pub bits_per_second: f64,
}

impl Sum {
    /// Reads iperf3's JSON.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("not iperf3's JSON")?;
        if let Some(error) = value["error"].as_str() {
            bail!("iperf3: {error}");
        }
        let sum = &value["end"]["sum_received"];
        let number =
            |name: &str| sum[name].as_f64().with_context(|| format!("no {name} of iperf3"));
        let sum = Self { bytes: number("bytes")?, bits_per_second: number("bits_per_second")? };
        if sum.bytes == 0.0 {
            bail!("iperf3 received nothing");
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_counts() {
        let text = r#"{"start": {}, "end": {
            "sum_sent": {"bytes": 533331968, "bits_per_second": 4262223032.04},
            "sum_received": {"start": 0, "end": 1.002088, "seconds": 1.002088,
                             "bytes": 528220160, "bits_per_second": 4216956275.29}}}"#;
        let sum = Sum { bytes: 528_220_160.0, bits_per_second: 4_216_956_275.29 };
        assert_eq!(Sum::parse(text).unwrap(), sum);
    }

    #[test]
    fn iperf3_says_itself_what_went_wrong() {
        let text = r#"{"start": {}, "end": {}, "error": "the server is busy"}"#;
        assert!(Sum::parse(text).unwrap_err().to_string().contains("busy"));
        let nothing = r#"{"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}}"#;
        assert!(Sum::parse(nothing).is_err());
        assert!(Sum::parse("iperf3: error").is_err());
    }
}
