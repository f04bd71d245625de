//! `sheath policy`: policy and external peers as objects of the Kubernetes API.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;
use crate::config::Config;
use crate::objects::{self, convert};

#[derive(Subcommand)]
pub enum PolicyCommand {
    /// Print the definitions of Sheath's objects, for `kubectl apply --server-side`.
    Definitions,
    /// Print a configuration file as objects, or objects as keys of the configuration file.
    ///
    /// What has no equivalent is said in a comment where nothing less is protected without it, and is an error where it would be.
    Convert {
        /// The file: a configuration, or objects
        file: PathBuf,
        /// The namespace of the objects that are made of a configuration
        #[arg(long, default_value = "default")]
        namespace: String,
    },
}

pub fn run(command: &PolicyCommand) -> Result<ExitCode, Failure> {
    let text = match command {
        PolicyCommand::Definitions => objects::definitions_yaml().map_err(Failure::new)?,
        PolicyCommand::Convert { file, namespace } => {
            let converted = match convert::Input::read(file).map_err(Failure::usage)? {
                convert::Input::Objects(list) => convert::to_file(&list),
                convert::Input::File(keys) => {
                    // It makes sense as a whole, or its parts say nothing.
                    Config::load(file).map_err(Failure::usage)?;
                    convert::to_objects(&keys, namespace)
                }
            };
            converted.and_then(|converted| converted.yaml()).map_err(Failure::usage)?
        }
    };
    // In one piece: to write to a reader that has gone, as `head` does, is no reason to panic.
    stdout().write_all(text.as_bytes()).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}
