//! What is sent through a contender, and what is measured of it. A load's file knows the program that makes it, how
//! that is called and how its output is read; a program that several loads use has a file of its own.

mod connections;
mod http;
pub mod idle;
mod iperf3;
pub mod names;
pub mod peers;
mod pingpong;
mod redis;
mod sockperf;
mod throughput;

use anyhow::Result;

use self::names::{CPU_CLIENT, CPU_SERVER};
use crate::contender::{Contender, Entry, SIDES, Side};
use crate::process;
use crate::results::Quantity;
use crate::scale::Scale;

/// Values of a load's quantities, by their names.
pub type Figures = Vec<(&'static str, f64)>;

/// A load.
pub trait Load {
    /// As the command line and the JSON have it.
    fn name(&self) -> String;

    /// As a heading has it.
    fn title(&self) -> String;

    /// What it measures, the most telling first.
    fn quantities(&self) -> &'static [Quantity];

    /// Plays it once.
    ///
    /// # Errors
    /// When anything goes wrong: half a load has no figures.
    fn play(&self, contender: &Contender, scale: &Scale) -> Result<Figures>;

    /// Whether it can be played with a contender.
    fn is_for(&self, entry: &Entry) -> bool {
        !entry.connections_only
    }

    /// In how many rounds it is played, if not in all.
    fn rounds(&self, _scale: &Scale) -> Option<u32> {
        None
    }

    /// Whether it is part of a quick run.
    fn is_quick(&self) -> bool {
        false
    }
}

/// Every load, in the order in which they are played and reported.
pub fn all() -> Vec<Box<dyn Load>> {
    let mut all: Vec<Box<dyn Load>> = Vec::new();
    for streams in [1, 4, 16] {
        for reverse in [false, true] {
            all.push(Box::new(throughput::Throughput { streams, reverse, buffers: None }));
        }
    }
    for reverse in [false, true] {
        let buffers = Some(throughput::SMALL);
        all.push(Box::new(throughput::Throughput { streams: 1, reverse, buffers }));
    }
    all.push(Box::new(pingpong::PingPong { bytes: 100, loaded: false }));
    all.push(Box::new(pingpong::PingPong { bytes: 1_024, loaded: false }));
    all.push(Box::new(pingpong::PingPong { bytes: 100, loaded: true }));
    all.push(Box::new(connections::Connections { concurrency: 1 }));
    all.push(Box::new(connections::Connections { concurrency: 32 }));
    all.push(Box::new(redis::Redis { pipeline: 1 }));
    all.push(Box::new(redis::Redis { pipeline: 16 }));
    for clients in [32, 500] {
        all.push(Box::new(http::Http { clients }));
    }
    all.push(Box::new(idle::Idle));
    all.push(Box::new(peers::Peers));
    all
}

/// Does some work. Returns, with what came of it, the seconds of processor time that each side of the contender took
/// for it, by the quantities' names.
fn with_cpu<T>(contender: &Contender, work: impl FnOnce() -> Result<T>) -> Result<(T, Figures)> {
    let before = SIDES.map(|side| cpu(contender, side));
    let done = work()?;
    let mut figures = Figures::new();
    for ((side, name), before) in SIDES.into_iter().zip([CPU_CLIENT, CPU_SERVER]).zip(before) {
        if let Some((before, after)) = before?.zip(cpu(contender, side)?) {
            figures.push((name, after - before));
        }
    }
    Ok((done, figures))
}

/// Processor time of one side so far; `None` where nothing stands in between.
fn cpu(contender: &Contender, side: Side) -> Result<Option<f64>> {
    let processes = contender.processes(side)?;
    if processes.is_empty() {
        return Ok(None);
    }
    process::cpu_seconds(&processes).map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_loads_and_of_their_quantities_are_unique() {
        let all = all();
        let names: BTreeSet<String> = all.iter().map(|load| load.name()).collect();
        assert_eq!(names.len(), all.len());
        for load in all {
            let quantities: BTreeSet<&str> =
                load.quantities().iter().map(|quantity| quantity.name).collect();
            assert_eq!(quantities.len(), load.quantities().len(), "{}", load.name());
        }
    }
}
