//! `cargo xtask demo`: real programs on two nodes, and what the applications, the wire and a few
//! strangers saw.

mod kill;
mod progress;
mod report;
mod scene;
mod strangers;
mod traffic;

use std::process::ExitCode;

use nix::sys::signal::Signal;
use sheath_tests::wait;

use crate::progress::step;
use crate::report::Report;
use crate::scene::{Prelude, Scene};

const USAGE: &str = "usage: demo [--output text|json]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let json = match arguments[..] {
        [] | ["--output", "text"] => false,
        ["--output", "json"] => true,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    wait::interrupt_on(&[Signal::SIGINT, Signal::SIGTERM]).expect("a signal handler");
    // A panic has already said why, and has dropped, and so removed, whatever was set up.
    let Ok(report) = std::panic::catch_unwind(play) else {
        eprintln!("error: the demo could not be played to its end");
        return ExitCode::FAILURE;
    };
    if json {
        println!("{}", report.to_json());
    } else {
        report.print();
    }
    if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The whole demo. Everything it sets up is gone when it returns.
fn play() -> Report {
    let mut report = Report::default();
    let prelude = step("two nodes, nginx and redis", Prelude::new);
    step("curl without Sheath", || traffic::without_sheath(&prelude, &mut report));
    let mut scene = step("an agent on each node", || Scene::new(prelude));
    step("curl and redis-cli with Sheath", || traffic::with_sheath(&scene, &mut report));
    step("strangers", || strangers::are_refused(&scene, &mut report));
    step("an agent killed", || kill::nothing_leaks(&mut scene, &mut report));
    step("cleaning up", || drop(scene));
    report
}
