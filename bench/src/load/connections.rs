//! New connections: opened, used for one byte each way, closed.

use anyhow::Result;

use super::names::{CPU_CLIENT, CPU_SERVER, RATE};
use super::{Figures, Load, with_cpu};
use crate::contender::{Contender, Entry};
use crate::play::{Churn, Play};
use crate::results::Quantity;
use crate::scale::Scale;
use crate::services::ECHO;

/// So many clients, each of which opens one connection after the other.
pub struct Connections {
    pub concurrency: usize,
}

impl Load for Connections {
    fn name(&self) -> String {
        format!("connect_{}", self.concurrency)
    }

    fn title(&self) -> String {
        match self.concurrency {
            1 => "New connections, one after the other".to_owned(),
            many => format!("New connections, {many} at once"),
        }
    }

    fn quantities(&self) -> &'static [Quantity] {
        const {
            &[
                Quantity { name: RATE, title: "connections", unit: "/s" },
                Quantity { name: CPU_CLIENT, title: "CPU, client side", unit: "ms each" },
                Quantity { name: CPU_SERVER, title: "CPU, server side", unit: "ms each" },
            ]
        }
    }

    fn play(&self, contender: &Contender, scale: &Scale) -> Result<Figures> {
        let milliseconds = u64::try_from(scale.duration.as_millis())?;
        let concurrency = self.concurrency;
        let play = Play::Connect { to: contender.target(ECHO), concurrency, milliseconds };
        let mut command = play.command(&contender.client)?;
        let (churn, cpu) =
            with_cpu(contender, || Churn::parse(&contender.run_client(&mut command)?))?;
        let connections = churn.connections as f64;
        let rate = [(RATE, connections / churn.seconds)];
        let each = |(name, seconds)| (name, seconds * 1e3 / connections);
        Ok(rate.into_iter().chain(cpu.into_iter().map(each)).collect())
    }

    fn is_for(&self, _entry: &Entry) -> bool {
        true
    }

    fn is_quick(&self) -> bool {
        self.concurrency == 1
    }
}
