//! `cargo xtask test`: every test, unit and integration; without arguments also virtual machines with the oldest and the newest
//! kernel, and a short run of the fuzz targets.

use std::env;
use std::ffi::OsString;
use std::thread::available_parallelism;

use anyhow::Result;

use crate::prerequisites::Need;
use crate::{cluster, command, console, ebpf, fuzz, host, install, vagrant, vm, workspace};

/// Names the agent under test.
const AGENT: &str = "SHEATH_BIN";

/// What tells Rust's test programs how many tests to run at a time.
const THREADS: &str = "RUST_TEST_THREADS";

pub fn run(args: &[OsString]) -> Result<()> {
    host::require()?;
    let everything = args.is_empty();
    let mut needs =
        vec![Need::Bpf, Need::Scenarios, Need::Interop, Need::Package, Need::PackageLife];
    let has_machines = everything && vm::can_run();
    needs.extend(everything.then_some(Need::Fuzz));
    needs.extend(has_machines.then_some(Need::Vm));
    install::ensure(&needs)?;
    ebpf::build()?;
    cluster::ensure_programs()?;
    vagrant::ensure_system()?;
    if has_machines {
        vm::ensure_images()?;
    }
    console::step("build tests", || {
        let mut command = command::cargo();
        command.args(["test", "--no-run"]);
        // Cargo builds a package's programs along with any of its benchmarks: so there is an agent, and of the features
        // that all tests have it built with, or dependencies would be compiled once more.
        command.args(if everything { &[][..] } else { &["--bench", "framing"] });
        command::run(&mut command)
    })?;
    console::step("tests", || {
        let mut command = command::cargo();
        command.arg("test").args(args);
        // For figures one names another, which is optimised.
        if env::var_os(AGENT).is_none() {
            command.env(AGENT, workspace::debug_program("sheath"));
        }
        if env::var_os(THREADS).is_none() {
            // Scenarios wait for most of their time.
            let cpus = available_parallelism().map_or(1, usize::from);
            command.env(THREADS, (2 * cpus).to_string());
        }
        command::run(&mut command)
    })?;
    if has_machines {
        vm::core()?;
    } else if everything {
        console::warn("virtual machines are not run: there are none for this architecture");
    }
    if everything { fuzz::briefly() } else { Ok(()) }
}
