//! `cargo xtask demo`: real programs on two nodes, and what the applications, the wire and a few strangers saw. With
//! `--kubernetes` the same in a cluster, where the chart is installed.

mod kill;
mod kubernetes;
mod progress;
mod report;
mod scene;
mod strangers;
mod traffic;

use std::path::Path;
use std::process::ExitCode;

use nix::sys::signal::Signal;
use sheath_tests::wait;

use crate::progress::step;
use crate::report::Report;
use crate::scene::{Prelude, Scene};

const USAGE: &str = "usage: demo [--kubernetes PACKAGES] [--output text|json]";

const SCENE: &str = "
  node-a                              node-b
  curl, redis-cli                     nginx :8080, redis-server :6379
  agent     10.0.1.1 ----- wire ----- 10.0.2.1     agent
             fd00::1:1                fd00::2:1";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (packages, output) = match arguments[..] {
        ["--kubernetes", packages, ref output @ ..] => (Some(packages), output),
        ref output => (None, output),
    };
    let json = match output {
        [] | ["--output", "text"] => false,
        ["--output", "json"] => true,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    wait::interrupt_on(&[Signal::SIGINT, Signal::SIGTERM]).expect("a signal handler");
    // A panic has already said why, and has dropped, and so removed, whatever was set up.
    let played = std::panic::catch_unwind(|| match packages {
        Some(packages) => kubernetes::play(Path::new(packages)),
        None => play(),
    });
    let Ok(report) = played else {
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
    let mut report = Report::new(SCENE);
    let prelude = step("two nodes, nginx and redis", Prelude::new);
    step("curl without Sheath", || traffic::without_sheath(&prelude, &mut report));
    let mut scene = step("an agent on each node", || Scene::new(prelude));
    step("curl and redis-cli with Sheath", || traffic::with_sheath(&scene, &mut report));
    step("strangers", || strangers::are_refused(&scene, &mut report));
    step("an agent killed", || kill::nothing_leaks(&mut scene, &mut report));
    step("cleaning up", || drop(scene));
    report
}
