//! Every developer command: `cargo xtask <command>`.

mod agent;
mod apt;
mod architecture;
mod arm64;
mod bench;
mod cache;
#[cfg(test)]
mod circles;
mod cluster;
mod command;
mod console;
mod core;
mod cross;
mod demo;
#[cfg(test)]
mod directions;
mod ebpf;
mod fuzz;
mod go;
mod host;
mod install;
#[cfg(test)]
mod lengths;
mod lint;
#[cfg(test)]
mod modules;
mod objects;
mod package;
mod prerequisites;
mod programs;
#[cfg(test)]
mod promises;
mod repository;
mod test;
mod tool;
mod vagrant;
mod vm;
mod wheel;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, value_parser};

/// Developer commands of Sheath.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put Sheath and the proxies that people use under the same load, and compare
    Bench {
        /// Passed on to the benchmark, for example `--quick`; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Build the BPF programs into target/bpf/sheath.bpf.o
    BuildEbpf,
    /// Boot machines for arm64 on emulated processors, and have two agents in each serve a connection
    BootArm64(arm64::Boot),
    /// Run a Kubernetes cluster on this machine: the real programs, in namespaces of their own
    Cluster {
        #[command(subcommand)]
        command: cluster::Command,
    },
    /// Build everything and show it at work between two nodes on this machine
    Demo {
        /// In a Kubernetes cluster, with the Helm chart
        #[arg(long)]
        kubernetes: bool,
        /// Passed on to the demo, for example `--output json`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run every fuzz target, or one of them
    Fuzz {
        /// How long each target runs
        #[arg(long, value_name = "N", default_value_t = 60, value_parser = value_parser!(u64).range(1..))]
        seconds: u64,
        /// The name of a file in fuzz/targets
        target: Option<String>,
        /// Run the target on these files alone, for example on one that made it crash
        inputs: Vec<PathBuf>,
    },
    /// Write a container image as an OCI archive, for `cargo xtask cluster load`
    Image(cluster::Image),
    /// Check formatting, run clippy (user space and BPF) and cargo-deny
    Lint,
    /// Write the kinds of objects into the chart, and render it into deploy/manifests/sheath.yaml, for those who have no Helm
    Manifests,
    /// Make a Debian package and a tarball, with man pages and completions, in target/package
    Package(package::Package),
    /// Run every test, unit and integration, virtual machines with two kernels, and the fuzz targets for a moment
    Test {
        /// Passed on to `cargo test`, for example `-- --test scenarios tcp::`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Make a box for Vagrant's libvirt provider, which needs no network, in target/vagrant
    VagrantBox,
    /// Run `vagrant up` with that box and emulated processors, and look at the hosts and the wire between them
    ///
    /// Vagrant and libvirt are Debian's, in a system of their own: nothing is installed on this machine, and nothing of it is
    /// changed.
    VagrantUp,
    /// Boot virtual machines with several kernels and a running systemd, and run scenarios in them
    Vm(vm::Vm),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench { args } => bench::run(&args),
        Command::BootArm64(boot) => arm64::run(boot),
        Command::BuildEbpf => ebpf::run(),
        Command::Cluster { command } => cluster::run(command),
        Command::Demo { kubernetes, args } => demo::run(kubernetes, &args),
        Command::Fuzz { seconds, target, inputs } => fuzz::run(seconds, target, &inputs),
        Command::Image(image) => cluster::image(image),
        Command::Lint => lint::run(),
        Command::Manifests => cluster::manifests(),
        Command::Package(package) => package::run(package),
        Command::Test { args } => test::run(&args),
        Command::VagrantBox => vagrant::make_box(),
        Command::VagrantUp => vagrant::up(),
        Command::Vm(vm) => vm::run(&vm),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::error(&error);
            ExitCode::FAILURE
        }
    }
}
