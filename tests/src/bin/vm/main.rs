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

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};
use std::time::Instant;

use nix::sys::signal::Signal;
use sheath_tests::vm::results::{Outcome, Record, Subject};
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
    let date = date();
    let setting = |kernel: &Kernel| Setting {
        images: arguments.images.clone(),
        kernel: kernel.clone(),
        accel,
        processors: if cpus / at_once > 1 { 2 } else { 1 },
        date: date.clone(),
    };
    if let Some(script) = &arguments.script {
        return One::boot(&setting(first)).play(script);
    }
    let record = arguments.table.as_ref().map(|(file, kernels)| {
        let kernels: Vec<&str> = kernels.split(',').collect();
        let subject = |it: &Scenario| Subject { name: it.name, shows: it.shows };
        let subjects = scenarios.iter().map(subject).collect();
        Record::open(file, &kernels, subjects).expect("what earlier runs have seen")
    });
    let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
    let is_chosen = |scenario: &&Scenario| arguments.chooses(scenario.name, &names);
    let chosen: Vec<&Scenario> = scenarios.iter().filter(is_chosen).collect();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Results { record, passed: 0, failed: 0 });
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(kernel) = arguments.kernels.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    play(&setting(kernel), &chosen, &results);
                }
            });
        }
    });
    let Results { passed, failed, .. } = results.into_inner().unwrap();
    if wait::is_interrupted() {
        return ExitCode::FAILURE;
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Of all kernels.
struct Results {
    /// Written after each scenario: a run takes hours, and may be ended.
    record: Option<Record>,
    passed: usize,
    failed: usize,
}

impl Results {
    fn add(&mut self, outcome: Outcome) {
        *(if outcome.is_ok { &mut self.passed } else { &mut self.failed }) += 1;
        if let Some(record) = &mut self.record {
            record.add(outcome).expect("the table");
        }
    }
}

/// Runs scenarios on a kernel.
fn play(setting: &Setting, scenarios: &[&Scenario], results: &Mutex<Results>) {
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
        if wait::is_interrupted() {
            return;
        }
        let (name, kernel) = (scenario.name, &setting.kernel.name);
        let took = start.elapsed().as_secs_f64();
        let is_ok = seen.is_ok();
        let word = if is_ok { "ok" } else { "FAILED" };
        let detail = seen.unwrap_or_default();
        println!("test {kernel}::{name} ... {word} ({took:.1} s) {detail}");
        results.lock().unwrap().add(setting.outcome(name, is_ok, took, detail));
        if !is_ok {
            let _alone = TELLING.lock();
            eprintln!("--- {}::{name} has failed", setting.kernel.name);
            // What a failure has left is not what the next scenario expects.
            one.take().into_iter().for_each(|one: One| one.tell());
            two.take().into_iter().for_each(|two: Hosts| two.tell(&setting.kernel.name));
        }
    }
}

/// Today, in UTC.
fn date() -> String {
    let output = Command::new("date").args(["--utc", "+%Y-%m-%d"]).output().expect("date");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
