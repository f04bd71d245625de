//! The controller's directory at full size, in one process: all pods, and a stream for each node's agent. Tells how many bytes a
//! change and all of it take, how much memory on both sides, and for how long a thread is kept.

mod agents;
mod cluster;
mod measures;
mod simulation;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use cluster::Size;
use simulation::Simulation;

/// Simulate the directory of a large cluster
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 100_000)]
    pods: u32,
    #[arg(long, default_value_t = 5_000)]
    agents: u32,
    /// What is written to stdout at the end
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let size = Size { pods: options.pods, agents: options.agents };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(async { Simulation::new(size)?.run().await })?;
    match options.output {
        Output::Json => println!("{:#}", figures.json(size)),
        Output::Text => figures.write_table(size, std::io::stdout().lock())?,
    }
    Ok(())
}
