//! `sheath ca`: looking after the embedded CA.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use serde_json::json;

use super::which::Which;
use super::{Failure, Format, Output};
use crate::identity::{RootState, Roots};
use crate::spiffe::TrustDomain;
use crate::telemetry::rfc3339;
use crate::terminal::Table;

#[derive(Subcommand)]
pub enum CaCommand {
    /// Make a new CA. Every node of the trust domain needs a copy of the directory.
    Init {
        #[command(flatten)]
        ca: Directory,
        /// Of the configuration, if there is one.
        #[arg(long, value_name = "NAME")]
        trust_domain: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Make the next root. It is trusted wherever the directory is copied to, and issued from after the
    /// overlap: copy it to every node before that.
    Rotate {
        #[command(flatten)]
        ca: Directory,
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = period)]
        overlap: Duration,
        #[command(flatten)]
        format: Format,
    },
    /// Remove the roots before the active one. Certificates that they issued are not trusted from then on.
    Retire {
        #[command(flatten)]
        ca: Directory,
        /// How long the active root must have been active: no less than certificates live.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = period)]
        after: Duration,
        /// Do not wait.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Show the roots and what each of them is for now.
    Show {
        #[command(flatten)]
        ca: Directory,
        #[command(flatten)]
        format: Format,
    },
    /// Print the certificates of all roots in PEM, for peers that have no agent.
    Bundle {
        #[command(flatten)]
        ca: Directory,
    },
}

/// Where a CA is.
#[derive(clap::Args)]
pub struct Directory {
    /// The CA's directory [default: identity.ca.dir of --config or --instance, else /var/lib/sheath/ca]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "instance", "run_dir"])]
    dir: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

const DEFAULT_DIRECTORY: &str = "/var/lib/sheath/ca";

impl Directory {
    /// The directory, and the trust domain if a configuration was named.
    fn find(&self) -> Result<(PathBuf, Option<TrustDomain>), Failure> {
        match &self.dir {
            Some(dir) => Ok((dir.clone(), None)),
            None if self.which.is_left_open() => Ok((DEFAULT_DIRECTORY.into(), None)),
            None => {
                let (path, config) = self.which.load()?;
                let dir = config.ca_dir.ok_or_else(|| {
                    Failure::usage(format!("{}: identity.ca is not set up", path.display()))
                })?;
                Ok((dir, Some(config.trust_domain)))
            }
        }
    }

    fn path(&self) -> Result<PathBuf, Failure> {
        self.find().map(|(dir, _)| dir)
    }
}

fn period(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "it is not a length of time; write it like `30m` or `24h`".to_owned())
}

pub fn run(command: CaCommand) -> Result<ExitCode, Failure> {
    match command {
        CaCommand::Init { ca, trust_domain, format } => init(&ca, trust_domain, format.output)?,
        CaCommand::Rotate { ca, overlap, format } => rotate(&ca.path()?, overlap, format.output)?,
        CaCommand::Retire { ca, after, force, format } => {
            let after = if force { Duration::ZERO } else { after };
            retire(&ca.path()?, after, format.output)?;
        }
        CaCommand::Show { ca, format } => show(&ca.path()?, format.output)?,
        CaCommand::Bundle { ca } => bundle(&ca.path()?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn init(ca: &Directory, trust_domain: Option<String>, output: Output) -> Result<(), Failure> {
    let (directory, of_config) = ca.find()?;
    let trust_domain = match (trust_domain, of_config) {
        (Some(name), _) => TrustDomain::try_from(name).map_err(Failure::usage)?,
        (None, Some(domain)) => domain,
        (None, None) => {
            return Err(Failure::usage(
                "name the trust domain: --trust-domain NAME, or --config FILE that has it",
            ));
        }
    };
    let wrote = Roots::init(&directory, &trust_domain).map_err(Failure::new)?;
    match output {
        Output::Json => println!("{}", json!({ "wrote": wrote })),
        Output::Text => print_paths("wrote", &wrote),
    }
    Ok(())
}

fn print_paths(done: &str, paths: &[PathBuf]) {
    for path in paths {
        println!("{done} {}", path.display());
    }
}

fn domain(directory: &Path) -> Result<TrustDomain, Failure> {
    Roots::trust_domain(directory).map_err(Failure::new)
}

fn rotate(directory: &Path, overlap: Duration, output: Output) -> Result<(), Failure> {
    let from = SystemTime::now() + overlap;
    let wrote = Roots::rotate(directory, &domain(directory)?, overlap).map_err(Failure::new)?;
    match output {
        Output::Json => {
            println!("{}", json!({ "wrote": wrote, "active_from": rfc3339(from) }));
        }
        Output::Text => {
            print_paths("wrote", &wrote);
            println!(
                "issued from at {}; before that, copy both files to the CA directory of every node",
                rfc3339(from)
            );
        }
    }
    Ok(())
}

fn retire(directory: &Path, after: Duration, output: Output) -> Result<(), Failure> {
    let removed = Roots::retire(directory, &domain(directory)?, after).map_err(Failure::new)?;
    match output {
        Output::Json => println!("{}", json!({ "removed": removed })),
        Output::Text => print_paths("removed", &removed),
    }
    if removed.is_empty() && output == Output::Text {
        println!("there is no root before the active one");
    }
    Ok(())
}

fn show(directory: &Path, output: Output) -> Result<(), Failure> {
    let domain = domain(directory)?;
    let roots = Roots::read(directory, &domain).map_err(Failure::new)?;
    let roots = roots.status(SystemTime::now());
    match output {
        Output::Json => {
            let roots: Vec<_> = roots
                .iter()
                .map(|root| {
                    json!({
                        "file": root.file,
                        "state": root.state.name(),
                        "active_from": rfc3339(root.active_from),
                        "not_after": rfc3339(root.facts.not_after),
                        "serial": root.facts.serial,
                        "sha256": root.facts.fingerprint.to_string(),
                        "has_key": root.has_key,
                    })
                })
                .collect();
            println!("{}", json!({"trust_domain": domain.to_string(), "roots": roots}));
        }
        Output::Text => {
            let mut table =
                Table::new(["FILE", "STATE", "ACTIVE FROM", "NOT AFTER", "KEY", "SHA-256"]);
            for root in &roots {
                table.row([
                    root.file.clone(),
                    root.state.name().to_owned(),
                    rfc3339(root.active_from),
                    rfc3339(root.facts.not_after),
                    if root.has_key { "yes" } else { "no" }.to_owned(),
                    root.facts.fingerprint.to_string(),
                ]);
            }
            anstream::print!("trust domain {domain}\n\n{table}");
            if roots.iter().any(|root| root.state == RootState::Old) {
                anstream::println!(
                    "\n`sheath ca retire` removes old roots when they are not needed any more"
                );
            }
        }
    }
    Ok(())
}

fn bundle(directory: &Path) -> Result<(), Failure> {
    let roots = Roots::read(directory, &domain(directory)?).map_err(Failure::new)?;
    print!("{}", roots.bundle_pem(SystemTime::now()));
    Ok(())
}
