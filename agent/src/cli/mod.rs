//! The command line.

mod ca;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;

use crate::admin::Question;
use crate::capture::Pins;
use crate::check::Level;
use crate::config::{Config, DEFAULT_INSTANCE, DEFAULT_RUN_DIR, Instance};
use crate::sys::namespaces;
use crate::{admin, app, check, telemetry};

use ca::CaCommand;

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
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration and the host it is for, changing nothing.
    Check {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show what a running agent sees.
    Status {
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show the certificates that a running agent holds, and what it judges others by.
    Certs {
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Have a running agent read its configuration again, as SIGHUP does.
    Reload {
        #[command(flatten)]
        instance: InstanceArgs,
    },
    /// Remove everything an agent has left in the kernel. From then on nothing is protected.
    Cleanup {
        #[command(flatten)]
        instance: InstanceArgs,
    },
    /// Look after the embedded CA.
    #[command(subcommand)]
    Ca(CaCommand),
}

/// Which agent of the host.
#[derive(clap::Args)]
struct InstanceArgs {
    #[arg(long, value_name = "NAME", default_value = DEFAULT_INSTANCE)]
    instance: String,
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
}

impl InstanceArgs {
    fn instance(&self) -> Result<Instance, Failure> {
        Instance::new(&self.instance, &self.run_dir).map_err(Failure::usage)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What to print on stderr, and the exit status: 1 if it did not work, 2 if it was asked wrongly.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn new(error: impl ToString) -> Self {
        Self { message: error.to_string(), code: 1 }
    }

    fn usage(error: impl ToString) -> Self {
        Self { message: error.to_string(), code: 2 }
    }
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { config } => run(&config),
        Command::Check { config, output } => check(&config, output),
        Command::Status { instance, output } => {
            ask(&instance, Question::Status, output, admin::render_status)
        }
        Command::Certs { instance, output } => {
            ask(&instance, Question::Certificates, output, admin::render_certificates)
        }
        Command::Reload { instance } => ask(&instance, Question::Reload, Output::Text, |_, _| {
            "configuration reloaded\n".to_owned()
        }),
        Command::Cleanup { instance } => cleanup(&instance),
        Command::Ca(command) => ca::run(command),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn run(path: &Path) -> Result<ExitCode, Failure> {
    let config = Config::load(path).map_err(Failure::usage)?;
    telemetry::init(&config.log).map_err(Failure::usage)?;
    config.log_summary();
    // Before there are threads. What cannot be joined is found to be missing.
    let _ = namespaces::join_hosts_cgroups();
    app::run(path, config).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}

fn check(path: &Path, output: Output) -> Result<ExitCode, Failure> {
    let config = Config::load(path).map_err(Failure::usage)?;
    // As `run` does.
    let _ = namespaces::join_hosts_cgroups();
    let findings = check::check(&config);
    match output {
        Output::Text => print!("{}", check::render(&findings, std::io::stdout().is_terminal())),
        Output::Json => println!("{}", serde_json::to_string(&findings).map_err(Failure::new)?),
    }
    let failed = findings.iter().any(|finding| finding.level == Level::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Asks the agent, and shows what it says.
fn ask(
    args: &InstanceArgs,
    question: Question,
    output: Output,
    render: impl Fn(&Value, bool) -> String,
) -> Result<ExitCode, Failure> {
    let answer = admin::ask(&args.instance()?.admin_socket(), question).map_err(Failure::new)?;
    match output {
        Output::Text => print!("{}", render(&answer, std::io::stdout().is_terminal())),
        Output::Json => println!("{answer}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn cleanup(args: &InstanceArgs) -> Result<ExitCode, Failure> {
    let instance = args.instance()?;
    // The lock is held throughout: no agent can start into a half-removed state.
    let _lock = app::lock(&instance).map_err(Failure::new)?;
    let removed = Pins::of(&instance.name).remove_all().map_err(Failure::new)?;
    for path in &removed {
        println!("removed {}", path.display());
    }
    if removed.is_empty() {
        println!("nothing to remove for the instance `{}`", instance.name);
    }
    Ok(ExitCode::SUCCESS)
}
