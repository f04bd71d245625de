//! The `sheath` command.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use sheath::capture::Pins;
use sheath::check::Level;
use sheath::config::{Config, DEFAULT_INSTANCE, DEFAULT_RUN_DIR, Instance};
use sheath::identity::EmbeddedCa;
use sheath::spiffe::TrustDomain;
use sheath::{admin, app, check, telemetry};

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
    /// Remove everything an agent has left in the kernel. From then on nothing is protected.
    Cleanup {
        #[command(flatten)]
        instance: InstanceArgs,
    },
    /// Look after the embedded CA.
    #[command(subcommand)]
    Ca(CaCommand),
}

#[derive(Subcommand)]
enum CaCommand {
    /// Make a new CA. Every node of the trust domain needs a copy of the directory.
    Init {
        #[arg(long, value_name = "DIR", default_value = "/var/lib/sheath/ca")]
        dir: PathBuf,
        #[arg(long, value_name = "NAME")]
        trust_domain: String,
    },
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

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { config } => run(&config),
        Command::Check { config, output } => check(&config, output),
        Command::Status { instance, output } => status(&instance, output),
        Command::Cleanup { instance } => cleanup(&instance),
        Command::Ca(CaCommand::Init { dir, trust_domain }) => ca_init(&dir, trust_domain),
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
    app::run(config).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}

fn check(path: &Path, output: Output) -> Result<ExitCode, Failure> {
    let config = Config::load(path).map_err(Failure::usage)?;
    let findings = check::check(&config);
    match output {
        Output::Text => print!("{}", check::render(&findings, std::io::stdout().is_terminal())),
        Output::Json => println!("{}", serde_json::to_string(&findings).map_err(Failure::new)?),
    }
    let failed = findings.iter().any(|finding| finding.level == Level::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn status(args: &InstanceArgs, output: Output) -> Result<ExitCode, Failure> {
    let socket = args.instance()?.admin_socket();
    let status = admin::ask_status(&socket).map_err(Failure::new)?;
    match output {
        Output::Text => print!("{}", admin::render(&status, std::io::stdout().is_terminal())),
        Output::Json => println!("{status}"),
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

fn ca_init(directory: &Path, trust_domain: String) -> Result<ExitCode, Failure> {
    let trust_domain = TrustDomain::try_from(trust_domain).map_err(Failure::usage)?;
    for path in EmbeddedCa::init(directory, &trust_domain).map_err(Failure::new)? {
        println!("wrote {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
