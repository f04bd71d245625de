//! `cargo xtask vm`: scenarios in virtual machines, on each kernel. Machines are made once for each kind of scenario and kernel;
//! as many kernels run at a time as there are processors.

mod arguments;
mod hosts;
mod kinds;
mod list;
mod one;
mod package;
mod reboot;
mod service;
mod setting;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};
use std::time::Instant;

use nix::sys::signal::Signal;
use sheath_tests::vm::results::{self, Outcome, Run, Subject};
use sheath_tests::vm::{Kernel, acceleration};
use sheath_tests::wait;

use crate::arguments::Arguments;
use crate::hosts::Hosts;
use crate::list::{Kind, Scenario};
use crate::one::One;
use crate::setting::Setting;

fn main() -> ExitCode {
    let Some(arguments) = Arguments::read(std::env::args_os().skip(1)) else {
        eprintln!("{}", arguments::USAGE);
        return ExitCode::from(2);
    };
    let scenarios = list::scenarios();
    if arguments.list {
        eprintln!("scenarios:");
        for scenario in &scenarios {
            eprintln!("  {:24} {}", scenario.name, scenario.shows);
        }
        return ExitCode::SUCCESS;
    }
    wait::interrupt_on(&[Signal::SIGINT, Signal::SIGTERM]).expect("a signal handler");
    let Some(first) = arguments.kernels.first() else {
        eprintln!("{}", arguments::USAGE);
        return ExitCode::from(2);
    };
    let accel = acceleration::find(first);
    eprintln!("machines have {}", accel.describe());
    let cpus = available_parallelism().map_or(1, usize::from);
    let at_once = if arguments.script.is_some() { 1 } else { cpus.min(arguments.kernels.len()) };
    let setting = |kernel: &Kernel| Setting {
        images: arguments.images.clone(),
        kernel: kernel.clone(),
        accel,
        processors: if cpus / at_once > 1 { 2 } else { 1 },
    };
    if let Some(script) = &arguments.script {
        return One::boot(&setting(first)).play(script);
    }
    let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
    let is_chosen = |scenario: &&Scenario| arguments.chooses(scenario.name, &names);
    let chosen: Vec<&Scenario> = scenarios.iter().filter(is_chosen).collect();
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(kernel) = arguments.kernels.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    play(&setting(kernel), &chosen, &outcomes);
                }
            });
        }
    });
    let mut outcomes: Vec<Outcome> = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|outcome| {
        arguments.kernels.iter().position(|kernel| kernel.name == outcome.kernel)
    });
    if wait::is_interrupted() {
        return ExitCode::FAILURE;
    }
    if let Some(table) = &arguments.table {
        let subject = |it: &Scenario| Subject { name: it.name, shows: it.shows };
        let subjects: Vec<Subject> = scenarios.iter().map(subject).collect();
        let run = Run { date: date(), systemd: systemd(&outcomes), processors: accel.describe() };
        let text = results::document(&arguments.kernels, &subjects, &outcomes, &run);
        fs::write(table, text).expect("the table");
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.is_ok).count();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {} passed; {failed} failed", outcomes.len() - failed);
    if failed == 0 && !outcomes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs scenarios on a kernel.
fn play(setting: &Setting, scenarios: &[&Scenario], outcomes: &Mutex<Vec<Outcome>>) {
    static TELLING: Mutex<()> = Mutex::new(());
    let (mut one, mut two) = (None, None);
    for scenario in scenarios {
        // Memory is for one kind at a time.
        match scenario.kind {
            Kind::Two(_) => one = None,
            Kind::One(_) | Kind::Tests(_) => two = None,
        }
        if wait::is_interrupted() {
            return;
        }
        let start = Instant::now();
        let seen = catch_unwind(AssertUnwindSafe(|| match scenario.kind {
            Kind::One(run) => run(one.get_or_insert_with(|| One::boot(setting))),
            Kind::Tests(names) => one.get_or_insert_with(|| One::boot(setting)).tests(names),
            Kind::Two(run) => run(two.get_or_insert_with(|| Hosts::boot(setting))),
        }));
        let (name, kernel) = (scenario.name, setting.kernel.name.clone());
        let took = start.elapsed();
        let is_ok = seen.is_ok();
        let word = if is_ok { "ok" } else { "FAILED" };
        let detail = seen.unwrap_or_default();
        println!("test {kernel}::{name} ... {word} ({:.1} s) {detail}", took.as_secs_f64());
        outcomes.lock().unwrap().push(Outcome { kernel, scenario: name, is_ok, detail, took });
        if !is_ok && !wait::is_interrupted() {
            let _alone = TELLING.lock();
            eprintln!("--- {}::{name} has failed", setting.kernel.name);
            // What a failure has left is not what the next scenario expects.
            one.take().into_iter().for_each(|one: One| one.tell());
            two.take().into_iter().for_each(|two: Hosts| two.tell(&setting.kernel.name));
        }
    }
}

fn date() -> String {
    let output = Command::new("date").args(["--utc", "+%Y-%m-%d"]).output().expect("date");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The version, as the scenario tells it that boots a machine.
fn systemd(outcomes: &[Outcome]) -> String {
    let details = outcomes.iter().map(|outcome| outcome.detail.as_str());
    let version =
        details.flat_map(|detail| detail.split(", ")).find(|word| word.starts_with("systemd "));
    version.unwrap_or("systemd").to_owned()
}
