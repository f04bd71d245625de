//! `sheath launch`: what an agent starts its successor with, so that it is not its child.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use crate::sys::launch;

#[derive(clap::Args)]
pub struct Launch {
    /// What the program is to be called
    name: OsString,
    /// The program's file
    file: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Launch {
    /// Returns when the agent has heard of the process.
    pub fn run(&self) -> Result<ExitCode, Failure> {
        launch::launch(&self.name, &self.file, &self.arguments).map_err(Failure::new)?;
        Ok(ExitCode::SUCCESS)
    }
}
