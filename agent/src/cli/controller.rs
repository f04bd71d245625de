//! `sheath controller`: the controller of a cluster.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use crate::controller::{self, Settings};
use crate::telemetry;

#[derive(clap::Args)]
pub struct Controller {
    /// The controller's settings.
    #[arg(long, value_name = "FILE", default_value = "/etc/sheath/controller.yaml")]
    config: PathBuf,
}

pub fn run(command: &Controller) -> Result<ExitCode, Failure> {
    let settings = Settings::load(&command.config).map_err(Failure::usage)?;
    telemetry::init(&settings.log).map_err(Failure::usage)?;
    tracing::debug!(?settings, "settings");
    controller::run(settings).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}
