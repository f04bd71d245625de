//! Round trips of sockperf.

use anyhow::Result;

use super::iperf3::Background;
use super::names::{P50, P99};
use super::sockperf::{client, percentile};
use super::{Figures, Load};
use crate::contender::Contender;
use crate::results::Quantity;
use crate::scale::Scale;

/// Messages of so many bytes, while nothing else happens or while a stream passes beside them.
pub struct PingPong {
    pub bytes: u32,
    pub loaded: bool,
}

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
