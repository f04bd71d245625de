//! `sheath cni`: the plugin of the container runtime, and how it gets there.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::which::Which;
use super::{Failure, Format, Output};
use crate::gate::cni::{self, AllowedPod, Change, Installation};

#[derive(Subcommand)]
pub enum CniCommand {
    /// Copy this program to the runtime's plugins, and add it to the network's configuration.
    Install {
        #[command(flatten)]
        node: Directories,
        #[command(flatten)]
        which: Which,
        /// A pod that may start without the agent, by its whole name. Whoever may make pods in that namespace can take it.
        #[arg(long, value_name = "NAMESPACE/NAME")]
        allow: Vec<AllowedPod>,
        #[command(flatten)]
        format: Format,
    },
    /// Undo that. Pods then start without the agent being asked.
    Uninstall {
        #[command(flatten)]
        node: Directories,
        #[command(flatten)]
        format: Format,
    },
}

/// Where the runtime looks for networks and plugins.
#[derive(clap::Args)]
pub struct Directories {
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
}

impl Directories {
    fn installation(self) -> Installation {
        Installation { conf_dir: self.conf_dir, bin_dir: self.bin_dir }
    }
}

/// True if the program was run under the plugin's name, as the runtime does it.
pub fn is_plugin() -> bool {
    let program = std::env::args_os().next().map(PathBuf::from);
    program.is_some_and(|program| program.file_name().is_some_and(|name| name == cni::PLUGIN))
}

pub fn run(command: Option<CniCommand>) -> Result<ExitCode, Failure> {
    match command {
        None => return Ok(cni::run()),
        Some(CniCommand::Install { node, which, allow, format }) => {
            let socket = which.instance()?.gate_socket();
            // Also if it has been replaced since it was started.
            let program = Path::new("/proc/self/exe");
            let changes = node.installation().install(program, &socket, &allow);
            print(&changes.map_err(Failure::new)?, format.output);
        }
        Some(CniCommand::Uninstall { node, format }) => {
            let changes = node.installation().uninstall();
            print(&changes.map_err(Failure::new)?, format.output);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(changes: &[Change], output: Output) {
    if output == Output::Json {
        println!("{}", json!({ "changes": changes }));
        return;
    }
    for Change { path, done } in changes {
        println!("{done} {}", path.display());
    }
    if changes.is_empty() {
        println!("nothing to change");
    }
}
