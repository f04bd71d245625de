//! The command line.

mod ca;
mod cleanup;
mod cni;
mod controller;
mod health;
mod launch;
mod manual;
mod policy;
mod replace;
mod which;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;
use sheath_common::workload::FIRST_ID;

use crate::admin::Request;
use crate::check::Level;
use crate::sys::namespaces;
use crate::{admin, app, check, telemetry};

use ca::CaCommand;
use cleanup::{AwaitCleanup, Cleanup};
use cni::CniCommand;
use controller::Controller;
use health::Health;
use launch::Launch;
use manual::{Completions, Manual};
use policy::PolicyCommand;
use replace::Replace;
use which::Which;

/// Transparent mutual TLS for workloads on Linux.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent until it is told to stop.
    Run {
        #[command(flatten)]
        which: Which,
        /// Take over from an agent of the instance that runs: it hands over, and no connection is refused meanwhile
        #[arg(long)]
        take_over: bool,
    },
    /// Check a configuration and the host it is for, changing nothing.
    Check {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        format: Format,
    },
    /// Show what a running agent sees.
    Status {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        format: Format,
        #[command(flatten)]
        judge: Judge,
    },
    /// Show the certificates that a running agent holds, and what it judges others by.
    Certs {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        format: Format,
        #[command(flatten)]
        judge: Judge,
    },
    /// Ask a running agent whether it is alive, or ready: for those who look after it, such as a kubelet.
    ///
    /// Ends with status 3 if it is not, and says why.
    Health(Health),
    /// Have a running agent read its configuration again, as SIGHUP does.
    Reload {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        format: Format,
    },
    /// Have a running agent replaced by the program that is installed now, without a connection refused or lost.
    ///
    /// For agents of a service manager, such as systemd, after an update. The new process takes over from the running one and becomes the
    /// service's main process; if it cannot, the running one goes on. Settings of the unit that have changed hold after the next restart.
    Replace(Replace),
    /// Remove everything an agent has left in the kernel. From then on nothing is protected.
    Cleanup(Cleanup),
    /// Wait until the pods of a DaemonSet run on all of their nodes: those that clean up when the chart is uninstalled.
    AwaitCleanup(AwaitCleanup),
    /// Run the controller of a Kubernetes cluster until it is told to stop.
    Controller(Controller),
    /// Look after the embedded CA.
    #[command(subcommand)]
    Ca(CaCommand),
    /// The gate for container runtimes without NRI. Without a subcommand this is the plugin that the runtime runs.
    Cni {
        #[command(subcommand)]
        command: Option<CniCommand>,
    },
    /// Policy and external peers as objects of the Kubernetes API.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Write what a shell needs to complete this command line, to stdout.
    Completions(Completions),
    /// Write man pages into a directory, for those who make packages.
    Manual(Manual),
    /// Start a program for an agent that is to be replaced (`replace`). Nobody else has a use for it.
    #[command(hide = true)]
    Launch(Launch),
}

#[derive(clap::Args)]
struct Format {
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(clap::Args)]
struct Judge {
    /// End with status 3 if something is not as it should be.
    #[arg(long)]
    exit_code: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// It did not work, or a check has found errors.
const FAILED: u8 = 1;
/// What was asked for makes no sense: the command line or the configuration.
const USAGE: u8 = 2;
/// The agent answers that something is not as it should be, and `--exit-code` asks for that.
const UNWELL: u8 = 3;

/// What to print on stderr, and the exit status.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn new(error: impl ToString) -> Self {
        Self { message: error.to_string(), code: FAILED }
    }

    fn usage(error: impl ToString) -> Self {
        Self { message: error.to_string(), code: USAGE }
    }
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    if cni::is_plugin() {
        return crate::gate::cni::run();
    }
    let result = match Cli::parse().command {
        Command::Run { which, take_over } => run(&which, take_over),
        Command::Check { which, format } => check(&which, format.output),
        Command::Status { which, format, judge } => {
            let is_well = judge.exit_code.then_some(admin::is_well as fn(&Value) -> bool);
            ask(&which, Request::Status, format.output, admin::render_status, is_well)
        }
        Command::Certs { which, format, judge } => {
            let is_well = judge.exit_code.then_some(admin::are_well as fn(&Value) -> bool);
            ask(&which, Request::Certificates, format.output, admin::render_certificates, is_well)
        }
        Command::Health(health) => health.run(),
        Command::Reload { which, format } => {
            let render = |_: &Value| "configuration reloaded\n".to_owned();
            ask(&which, Request::Reload, format.output, render, None)
        }
        Command::Replace(replace) => replace.run(),
        Command::Cleanup(cleanup) => cleanup.run(),
        Command::AwaitCleanup(waiting) => waiting.run(),
        Command::Controller(command) => controller::run(&command),
        Command::Ca(command) => ca::run(command),
        Command::Cni { command } => cni::run(command),
        Command::Policy(command) => policy::run(&command),
        Command::Completions(completions) => completions.run(),
        Command::Manual(manual) => manual.run(),
        Command::Launch(launch) => launch.run(),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn run(which: &Which, takes_over: bool) -> Result<ExitCode, Failure> {
    // Before there are threads, and before the agent's own cgroup is asked for. What cannot be joined is found to be missing.
    let _ = namespaces::join_hosts_cgroups();
    let (path, config) = which.load()?;
    telemetry::init(&config.log).map_err(Failure::usage)?;
    config.log_summary();
    app::run(&path, config, takes_over).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}

fn check(which: &Which, output: Output) -> Result<ExitCode, Failure> {
    // As `run` does.
    let _ = namespaces::join_hosts_cgroups();
    let (_, mut config) = which.load()?;
    // Any will do where nothing is put in force.
    config.desired.number(FIRST_ID..);
    let mut findings = check::check(&config);
    // There may be no agent yet.
    if let Ok(status) = Request::Status.send(&config.instance.admin_socket()) {
        findings.extend(check::running(&status));
    }
    match output {
        Output::Text => anstream::print!("{}", check::render(&findings)),
        Output::Json => println!("{}", serde_json::to_string(&findings).map_err(Failure::new)?),
    }
    let failed = findings.iter().any(|finding| finding.level == Level::Error);
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// Sends a request to the agent, and shows its answer.
fn ask(
    which: &Which,
    request: Request,
    output: Output,
    render: impl Fn(&Value) -> String,
    is_well: Option<fn(&Value) -> bool>,
) -> Result<ExitCode, Failure> {
    let answer = request.send(&which.instance()?.admin_socket()).map_err(Failure::new)?;
    match output {
        Output::Text => anstream::print!("{}", render(&answer)),
        Output::Json => println!("{answer}"),
    }
    let is_well = is_well.is_none_or(|is_well| is_well(&answer));
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(UNWELL) })
}
