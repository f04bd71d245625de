//! Debian's package manager.

use std::fs;
use std::io::{ErrorKind, Write, stderr};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::programs::find_program;
use crate::{command, console};

/// A Debian package.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Package {
    pub name: &'static str,
    /// A program on the PATH, or an absolute path.
    proof: &'static str,
    /// The service that installing the package would start, now and at every boot.
    service: Option<&'static str>,
}

impl Package {
    /// A package, and the file that proves its presence.
    pub const fn new(name: &'static str, proof: &'static str) -> Self {
        Self { name, proof, service: None }
    }

    pub const fn with_service(self, name: &'static str) -> Self {
        Self { service: Some(name), ..self }
    }

    pub fn is_missing(&self) -> bool {
        find_program(self.proof).is_none()
    }
}

/// Installs packages without starting their services, now or at boot, and without removing any package.
pub fn install(packages: &[Package]) -> Result<()> {
    let _policy = ServicePolicy::deny()?;
    command::run(apt_get().arg("update"))?;
    // A package that conflicts with an installed one must not silently replace it.
    let names = packages.iter().map(|package| package.name);
    command::run(
        apt_get().args(["install", "--yes", "--no-install-recommends", "--no-remove"]).args(names),
    )?;
    for service in packages.iter().filter_map(|package| package.service) {
        // What the scenarios need is the program, not the service.
        command::run(command::plain("update-rc.d").args([service, "disable"]).stdout(stderr()))?;
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = command::plain("apt-get");
    command.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]);
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(stderr());
    command
}

/// While this lives, installing a package starts no service: Debian's maintainer scripts ask the file
/// `/usr/sbin/policy-rc.d`. A machine that has its own such file has decided already.
struct ServicePolicy {
    ours: bool,
}

const POLICY_FILE: &str = "/usr/sbin/policy-rc.d";
const POLICY: &str = "#!/bin/sh
# Written by `cargo xtask` for as long as it installs packages, so that none starts a service.
exit 101
";

impl ServicePolicy {
    fn deny() -> Result<Self> {
        if fs::read(POLICY_FILE).is_ok_and(|left_over| left_over == POLICY.as_bytes()) {
            return Ok(Self { ours: true });
        }
        let mut options = fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o755).open(POLICY_FILE) {
            Ok(mut file) => file
                .write_all(POLICY.as_bytes())
                .map(|()| Self { ours: true })
                .with_context(|| format!("cannot write {POLICY_FILE}")),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(error).with_context(|| format!("cannot create {POLICY_FILE}")),
        }
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if self.ours && fs::remove_file(POLICY_FILE).is_err() {
            console::warn(&format!("{POLICY_FILE} is left behind; remove it"));
        }
    }
}
