//! `cargo xtask demo`: two nodes on this machine, real applications, and what the wire saw. With `--kubernetes` they are the
//! nodes of a cluster.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::prerequisites::Need;
use crate::{cluster, command, console, ebpf, host, install, workspace};

/// What the applications of the demo in a cluster are made of, for their image.
const PACKAGES: [&str; 7] =
    ["nginx-light", "redis-server", "redis-tools", "postgresql", "curl", "coreutils", "dash"];

pub fn run(in_cluster: bool, args: &[OsString]) -> Result<()> {
    host::require()?;
    install::ensure(&[Need::Bpf, Need::Scenarios])?;
    ebpf::build()?;
    let mut own: Vec<OsString> = Vec::new();
    if in_cluster {
        cluster::ensure_programs()?;
        let packages = PACKAGES.map(str::to_owned);
        let fetch = || cluster::fetch_packages(&packages);
        own.extend(["--kubernetes".into(), console::step("fetch Debian packages", fetch)?.into()]);
    }
    console::step("build agent and demo", || {
        let packages = ["--package", "sheath", "--package", "sheath-tests"];
        command::run(command::cargo().arg("build").args(packages).arg("--bins"))
    })?;
    // Becomes the demo instead of starting it: exit code and signals are the demo's own.
    let program = workspace::debug_program("demo");
    let mut demo = command::plain(&program);
    demo.args(own).args(args).env("SHEATH_BIN", workspace::debug_program("sheath"));
    Err(demo.exec()).with_context(|| format!("cannot start {}", program.display()))
}
