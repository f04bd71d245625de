//! `sheath ca`: looking after the embedded CA.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use serde_json::json;

use super::{Failure, Output};
use crate::identity::{RootState, Roots};
use crate::spiffe::TrustDomain;
use crate::telemetry::rfc3339;

#[derive(Subcommand)]
pub enum CaCommand {
    /// Make a new CA. Every node of the trust domain needs a copy of the directory.
    Init {
        #[command(flatten)]
        ca: Directory,
        #[arg(long, value_name = "NAME")]
        trust_domain: String,
    },
    /// Make the next root. It is trusted wherever the directory is copied to, and issued from after the
    /// overlap: copy it to every node before that.
    Rotate {
        #[command(flatten)]
        ca: Directory,
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
        overlap: Duration,
    },
    /// Remove the roots before the active one. Certificates that they issued are not believed from then on.
    Retire {
        #[command(flatten)]
        ca: Directory,
        /// How long the active root must have been active: no less than certificates live.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
        after: Duration,
        /// Do not wait.
        #[arg(long)]
        force: bool,
    },
    /// Show the roots and what each of them is for now.
    Show {
        #[command(flatten)]
        ca: Directory,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Print the certificates of all roots in PEM, for peers that have no agent.
    Bundle {
        #[command(flatten)]
        ca: Directory,
    },
}

#[derive(clap::Args)]
pub struct Directory {
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sheath/ca")]
    dir: PathBuf,
}

pub fn run(command: CaCommand) -> Result<ExitCode, Failure> {
    match command {
        CaCommand::Init { ca, trust_domain } => init(&ca.dir, trust_domain)?,
        CaCommand::Rotate { ca, overlap } => rotate(&ca.dir, overlap)?,
        CaCommand::Retire { ca, after, force } => {
            retire(&ca.dir, if force { Duration::ZERO } else { after })?;
        }
        CaCommand::Show { ca, output } => show(&ca.dir, output)?,
        CaCommand::Bundle { ca } => bundle(&ca.dir)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn init(directory: &Path, trust_domain: String) -> Result<(), Failure> {
    let trust_domain = TrustDomain::try_from(trust_domain).map_err(Failure::usage)?;
    for path in Roots::init(directory, &trust_domain).map_err(Failure::new)? {
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn domain(directory: &Path) -> Result<TrustDomain, Failure> {
    Roots::trust_domain(directory).map_err(Failure::new)
}

fn rotate(directory: &Path, overlap: Duration) -> Result<(), Failure> {
    let from = SystemTime::now() + overlap;
    let paths = Roots::rotate(directory, &domain(directory)?, overlap).map_err(Failure::new)?;
    for path in paths {
        println!("wrote {}", path.display());
    }
    println!(
        "issued from at {}; before that, copy both files to the CA directory of every node",
        rfc3339(from)
    );
    Ok(())
}

fn retire(directory: &Path, after: Duration) -> Result<(), Failure> {
    let removed = Roots::retire(directory, &domain(directory)?, after).map_err(Failure::new)?;
    for path in &removed {
        println!("removed {}", path.display());
    }
    if removed.is_empty() {
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
            let mut text = format!("trust domain {domain}\n\n");
            let _ = writeln!(
                text,
                "{:<10}  {:<8}  {:<20}  {:<20}  {:<3}  SHA-256",
                "FILE", "STATE", "ACTIVE FROM", "NOT AFTER", "KEY"
            );
            for root in &roots {
                let _ = writeln!(
                    text,
                    "{:<10}  {:<8}  {:<20}  {:<20}  {:<3}  {}",
                    root.file,
                    root.state.name(),
                    rfc3339(root.active_from),
                    rfc3339(root.facts.not_after),
                    if root.has_key { "yes" } else { "no" },
                    root.facts.fingerprint,
                );
            }
            if roots.iter().any(|root| root.state == RootState::Old) {
                text.push_str(
                    "\n`sheath ca retire` removes old roots when they are not needed any more\n",
                );
            }
            print!("{text}");
        }
    }
    Ok(())
}

fn bundle(directory: &Path) -> Result<(), Failure> {
    let roots = Roots::read(directory, &domain(directory)?).map_err(Failure::new)?;
    print!("{}", roots.bundle_pem(SystemTime::now()));
    Ok(())
}
