//! `cargo xtask boot-arm64`: Debian's kernels for arm64 with the agent for arm64, on processors that are emulated. Two agents in
//! one machine protect a client and a server; what is to be seen is in `scenario.sh`.

mod kernel;
mod machine;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::prerequisites::Need;
use crate::vm::kernels;
use crate::{agent, cache, console, install};

use kernel::KERNELS;

const SCENARIO: &str = include_str!("scenario.sh");

/// What the scenario says at its end, if nothing has ended it before.
const SEEN: &str = "sheath-arm64: everything was seen";

#[derive(clap::Args)]
pub struct Boot {
    /// Boot this kernel alone, 6.1, 6.12 or 16k; may be given again
    #[arg(long = "kernel", value_name = "NAME")]
    kernels: Vec<String>,
    /// A static agent for arm64 that is built already
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// Boots one machine after the other.
///
/// # Errors
/// When something is missing, or a machine does not show everything.
pub fn run(boot: Boot) -> Result<()> {
    let kernels = kernels::named(&KERNELS, &boot.kernels)?;
    install::ensure(&[Need::Arm64Machine])?;
    let agent = match boot.agent {
        Some(agent) => std::path::absolute(agent)?,
        None => agent::build_static_arm64()?,
    };
    let home = cache::home("arm64")?;
    for kernel in kernels {
        let dir = cache::locked(&home, || kernel::ensure(&home, kernel))?;
        let title = format!("machine for arm64, kernel {}", kernel.name);
        console::step(&title, || try_out(&dir, &agent))
            .with_context(|| format!("kernel {}", kernel.name))?;
    }
    Ok(())
}

fn try_out(kernel: &Path, agent: &Path) -> Result<()> {
    let initramfs = kernel::furnish(kernel, agent, SCENARIO)?;
    let mut is_seen = false;
    machine::run(kernel, &initramfs, |line| {
        is_seen |= line == SEEN;
        console::say(&format!("    {line}"));
    })?;
    if !is_seen {
        bail!("the machine has ended before everything was seen");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_scenario_is_what_is_waited_for() {
        let (_, words) = SEEN.split_once(": ").unwrap();
        assert_eq!(SCENARIO.lines().last(), Some(format!("say \"{words}\"").as_str()));
    }

    #[test]
    fn a_kernel_that_is_not_there_is_refused_with_those_that_are() {
        assert_eq!(kernels::named(&KERNELS, &[]).unwrap().len(), KERNELS.len());
        let error = kernels::named(&KERNELS, &["5.4".to_owned()]).unwrap_err().to_string();
        for kernel in &KERNELS {
            assert!(error.contains(kernel.name), "{error}");
        }
    }
}
