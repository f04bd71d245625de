//! Streams of iperf3: as many bytes as will go through.

use anyhow::Result;

use super::iperf3::{Sum, client};
use super::names::{CPU_CLIENT, CPU_SERVER, RATE};
use super::{Figures, Load, with_cpu};
use crate::contender::Contender;
use crate::results::Quantity;
use crate::scale::Scale;

/// Streams from the client to the server, or the other way.
pub struct Throughput {
    pub streams: u32,
    pub reverse: bool,
    /// Of both applications' sockets, as iperf3 has it; the kernel's choice if there is none.
    pub buffers: Option<&'static str>,
}

/// The size that the guides of many applications still recommend.
pub const SMALL: &str = "16K";

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
