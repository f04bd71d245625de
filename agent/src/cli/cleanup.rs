//! `sheath cleanup`, on one node, and `sheath await-cleanup`, for all nodes of a cluster.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::which::Which;
use super::{FAILED, Failure, Format, Output};
use crate::app::{Lock, StartError};
use crate::capture::Pins;
use crate::gate::cni::Installation;
use crate::kubernetes::{Access, Rollout, rollout};

/// How often something is looked at again.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub struct Cleanup {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    format: Format,
    /// How long to wait for the agent to end, such as `2m`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s")]
    wait: Duration,
    /// Undo `sheath cni install` as well: where the runtime looks for networks
    #[arg(long, value_name = "DIR", requires = "cni_bin_dir")]
    cni_conf_dir: Option<PathBuf>,
    /// Where the runtime looks for plugins
    #[arg(long, value_name = "DIR", requires = "cni_conf_dir")]
    cni_bin_dir: Option<PathBuf>,
    /// Remove nothing, and do nothing, until told to end: a container that says by running that its node is clean
    #[arg(long, conflicts_with_all = ["wait", "cni_conf_dir", "cni_bin_dir"])]
    stay: bool,
}

impl Cleanup {
    pub fn run(self) -> Result<ExitCode, Failure> {
        if self.stay {
            return stay();
        }
        let instance = self.which.instance()?;
        // The lock is held throughout: no agent can start into a half-removed state.
        let until = Instant::now() + self.wait;
        let _lock = loop {
            match Lock::take(&instance) {
                Err(StartError::AlreadyRunning(_)) if Instant::now() < until => {
                    thread::sleep(AGAIN)
                }
                locked => break locked.map_err(Failure::new)?,
            }
        };
        // Behind the lock: an agent that runs would install the plugin again.
        let directories = self.cni_conf_dir.zip(self.cni_bin_dir);
        let mut removed = Vec::new();
        if let Some((conf_dir, bin_dir)) = directories {
            let changes = Installation { conf_dir, bin_dir }.uninstall().map_err(Failure::new)?;
            removed.extend(changes.into_iter().map(|change| change.path));
        }
        removed.extend(Pins::of(&instance.name).remove_all().map_err(Failure::new)?);
        if self.format.output == Output::Json {
            println!("{}", json!({ "removed": removed }));
            return Ok(ExitCode::SUCCESS);
        }
        for path in &removed {
            println!("removed {}", path.display());
        }
        if removed.is_empty() {
            println!("nothing to remove for the instance `{}`", instance.name);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn stay() -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::new)?.block_on(async {
        let told = || signal(SignalKind::terminate()).map_err(Failure::new);
        told()?.recv().await;
        Ok(ExitCode::SUCCESS)
    })
}

#[derive(clap::Args)]
pub struct AwaitCleanup {
    /// Namespace of the DaemonSet
    #[arg(long)]
    namespace: String,
    /// Its name
    #[arg(long)]
    daemon_set: String,
    /// A kubeconfig; by default the service account of this pod
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// How long to wait, such as `3m`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "3m")]
    wait: Duration,
}

impl AwaitCleanup {
    pub fn run(self) -> Result<ExitCode, Failure> {
        let access = self.kubeconfig.map_or(Access::Pod, Access::Kubeconfig);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Failure::new)?.block_on(async {
            let client = access.connect().await.map_err(Failure::new)?.client;
            let until = Instant::now() + self.wait;
            let mut told = String::new();
            loop {
                let state = rollout(&client, &self.namespace, &self.daemon_set).await;
                let line = match &state {
                    Ok(Rollout { wanted, ready }) => format!("{ready} of {wanted} nodes are clean"),
                    Err(problem) => problem.to_string(),
                };
                if line != told {
                    eprintln!("{line}");
                    told = line;
                }
                if state.is_ok_and(|state| state.is_complete()) {
                    return Ok(ExitCode::SUCCESS);
                }
                if Instant::now() >= until {
                    eprintln!(
                        "error: not every node is clean; on those that are not, protected pods stay refused until `sheath cleanup` or a restart"
                    );
                    return Ok(ExitCode::from(FAILED));
                }
                tokio::time::sleep(AGAIN).await;
            }
        })
    }
}
