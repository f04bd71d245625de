//! iperf3: as many bytes as will go through.

use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{CPU_CLIENT, CPU_SERVER, Figures, Load, with_cpu};
use crate::contender::Contender;
use crate::results::Quantity;
use crate::run::Scale;
use crate::services::THROUGHPUT;

/// Streams from the client to the server, or the other way.
pub struct Throughput {
    pub streams: u32,
    pub reverse: bool,
    /// Of both applications' sockets, as iperf3 has it; the kernel's choice if there is none.
    pub buffers: Option<&'static str>,
}

/// What the guides of many an application still advise to.
pub const SMALL: &str = "16K";

pub const RATE: &str = "rate";

impl Load for Throughput {
    fn name(&self) -> String {
        let way = if self.reverse { "_reverse" } else { "" };
        match self.buffers {
            None => format!("throughput_{}{way}", self.streams),
            Some(_) => format!("small_buffers{way}"),
        }
    }

    fn title(&self) -> String {
        let streams = if self.streams == 1 { "one stream" } else { "streams" };
        let number = if self.streams == 1 { String::new() } else { format!("{} ", self.streams) };
        let way = if self.reverse { "server to client" } else { "client to server" };
        let buffers = self.buffers.map(|size| format!(", socket buffers of {size}"));
        format!("Throughput, {number}{streams}, {way}{}", buffers.unwrap_or_default())
    }

    fn quantities(&self) -> &'static [Quantity] {
        const {
            &[
                Quantity { name: RATE, title: "throughput", unit: "Gbit/s" },
                Quantity { name: CPU_CLIENT, title: "CPU, client side", unit: "s/GB" },
                Quantity { name: CPU_SERVER, title: "CPU, server side", unit: "s/GB" },
            ]
        }
    }

    fn play(&self, contender: &Contender, scale: &Scale) -> Result<Figures> {
        let mut arguments = vec!["-P".to_owned(), self.streams.to_string()];
        arguments.extend(self.reverse.then(|| "-R".to_owned()));
        arguments
            .extend(self.buffers.into_iter().flat_map(|size| ["-w".to_owned(), size.to_owned()]));
        let mut command = client(contender, &scale.seconds(), &arguments);
        let (sum, cpu) = with_cpu(contender, || Sum::parse(&contender.run_client(&mut command)?))?;
        let rate = [(RATE, sum.bits_per_second / 1e9)];
        let per_gigabyte = |(name, seconds)| (name, seconds / (sum.bytes / 1e9));
        Ok(rate.into_iter().chain(cpu.into_iter().map(per_gigabyte)).collect())
    }

    fn is_quick(&self) -> bool {
        !self.reverse && self.streams != 4 && self.buffers.is_none()
    }
}

fn client(contender: &Contender, seconds: &str, more: &[String]) -> std::process::Command {
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
struct Sum {
    bytes: f64,
    bits_per_second: f64,
}

impl Sum {
    fn parse(text: &str) -> Result<Self> {
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
