//! The command line.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Parser, ValueEnum};
use nix::sys::signal::Signal;
use sheath_tests::wait;

use crate::contender::{Entry, roster};
use crate::load::{self, Load};
use crate::machine::Machine;
use crate::play::Play;
use crate::results::Results;
use crate::run::Plan;
use crate::scale::Scale;
use crate::{report, run};

const ROUNDS: u32 = 5;
const QUICK_ROUNDS: u32 = 3;

/// Put Sheath and the proxies that people use under the same load, and compare
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    play: Option<Play>,
}

#[derive(Parser)]
struct Options {
    /// About two minutes: few contenders, few loads, a second each
    #[arg(long)]
    quick: bool,
    /// What is written to stdout at the end
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// How often each load is played with each contender [default: 5, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// These contenders alone
    #[arg(long, value_name = "CONTENDER", value_delimiter = ',')]
    only: Vec<String>,
    /// These loads alone, by their names or by how several begin
    #[arg(long, value_name = "LOAD", value_delimiter = ',')]
    load: Vec<String>,
    /// Another agent to compare with, as a contender of that name
    #[arg(long, value_name = "NAME=BINARY", value_parser = variant)]
    sheath: Vec<(String, PathBuf)>,
    /// Write docs/benchmarks.md and docs/benchmarks.svg, as a whole run does unasked
    #[arg(long)]
    write: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Does what the command line says. Everything that was set up is gone when it returns.
pub fn main(cli: Cli) -> ExitCode {
    let work = || match cli.play {
        Some(play) => play.run(),
        None => bench(&cli.options),
    };
    // The harness panics where it cannot go on, and has said why and cleaned up by then.
    let done = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(anyhow!("the benchmark could not be run to its end")));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    wait::interrupt_on(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
        .context("cannot catch signals")?;
    let plan = options.plan()?;
    let results = run::play(&plan)?;
    if options.write || options.is_whole() {
        write_docs(&plan, &results)?;
    }
    match options.output {
        Output::Text => print!("{}", report::text::render(&plan, &results)),
        Output::Json => println!("{}", report::json::render(&plan, &results)),
    }
    Ok(())
}

fn write_docs(plan: &Plan, results: &Results) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let text = report::markdown::render(plan, results, &Machine::look()?);
    for (name, text) in
        [("benchmarks.md", text), ("benchmarks.svg", report::svg::render(plan, results))]
    {
        let file = docs.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("wrote docs/{name}");
    }
    Ok(())
}

impl Options {
    /// Whether the run is the one whose results are published.
    fn is_whole(&self) -> bool {
        !self.quick && self.only.is_empty() && self.load.is_empty() && self.sheath.is_empty()
    }

    fn plan(&self) -> Result<Plan> {
        let scale = if self.quick { Scale::QUICK } else { Scale::FULL };
        let rounds = self.rounds.unwrap_or(if self.quick { QUICK_ROUNDS } else { ROUNDS });
        Ok(Plan { contenders: self.contenders()?, loads: self.loads()?, rounds, scale })
    }

    fn contenders(&self) -> Result<Vec<Entry>> {
        let all = roster(&self.sheath);
        let names: Vec<&str> = all.iter().map(|entry| entry.name.as_str()).collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        ensure!(unique.len() == names.len(), "two contenders of one name: {}", names.join(", "));
        if let Some(unknown) = self.only.iter().find(|name| !unique.contains(name.as_str())) {
            bail!("no contender {unknown:?}; there are {}", names.join(", "));
        }
        let chosen = |entry: &Entry| match self.only.is_empty() {
            true => !self.quick || entry.quick,
            false => self.only.contains(&entry.name),
        };
        Ok(all.into_iter().filter(chosen).collect())
    }

    fn loads(&self) -> Result<Vec<Box<dyn Load>>> {
        let all = load::all();
        let names: Vec<String> = all.iter().map(|load| load.name()).collect();
        let stands_for = |given: &str, name: &str| match names.iter().any(|name| name == given) {
            true => given == name,
            false => name.starts_with(given),
        };
        let is_known = |given: &str| names.iter().any(|name| stands_for(given, name));
        if let Some(unknown) = self.load.iter().find(|given| !is_known(given)) {
            bail!("no load begins with {unknown:?}; there are {}", names.join(", "));
        }
        let chosen = |load: &dyn Load| match self.load.is_empty() {
            true => !self.quick || load.is_quick(),
            false => self.load.iter().any(|given| stands_for(given, &load.name())),
        };
        Ok(all.into_iter().filter(|load| chosen(load.as_ref())).collect())
    }
}

fn variant(text: &str) -> Result<(String, PathBuf)> {
    let (name, binary) = text.split_once('=').context("not NAME=BINARY")?;
    ensure!(!name.is_empty() && !name.contains(','), "not a name: {name:?}");
    let binary = Path::new(binary);
    let binary = binary.canonicalize().with_context(|| format!("{}", binary.display()))?;
    Ok((name.to_owned(), binary))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan> {
        let cli = Cli::try_parse_from([&["bench"], arguments].concat());
        cli.expect("arguments that can be read").options.plan()
    }

    fn names(plan: &Plan) -> (Vec<String>, Vec<String>) {
        let contenders = plan.contenders.iter().map(|entry| entry.name.clone()).collect();
        (contenders, plan.loads.iter().map(|load| load.name()).collect())
    }

    #[test]
    fn a_quick_run_has_the_contenders_that_its_ratios_need() {
        let (contenders, loads) = names(&plan(&["--quick"]).unwrap());
        for name in ["direct", "relay", "sheath", "envoy"] {
            assert!(contenders.contains(&name.to_owned()), "{contenders:?}");
        }
        let needed = ["throughput_1", "throughput_16", "pingpong_100", "connect_1", "idle"];
        assert_eq!(loads, needed);
    }

    #[test]
    fn a_load_is_called_by_its_name_or_with_others_by_how_they_begin() {
        let (contenders, loads) = names(&plan(&["--only=envoy", "--load", "pingpong"]).unwrap());
        assert_eq!(contenders, ["envoy"]);
        assert_eq!(loads, ["pingpong_100", "pingpong_1024", "pingpong_loaded"]);
        assert_eq!(names(&plan(&["--load=throughput_1"]).unwrap()).1, ["throughput_1"]);
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let error = plan(&["--only", "ztunnel"]).err().unwrap().to_string();
        assert!(error.contains("ztunnel") && error.contains("haproxy"), "{error}");
        let error = plan(&["--load", "udp"]).err().unwrap().to_string();
        assert!(error.contains("udp") && error.contains("throughput_1_reverse"), "{error}");
    }

    #[test]
    fn another_agent_is_a_contender_with_a_name_of_its_own() {
        let (contenders, _) = names(&plan(&["--sheath", "old=/bin/sh"]).unwrap());
        assert!(contenders.contains(&"old".to_owned()), "{contenders:?}");
        assert!(plan(&["--sheath", "envoy=/bin/sh"]).is_err());
        assert!(Cli::try_parse_from(["bench", "--sheath", "old=/no/such/file"]).is_err());
    }
}
