//! `cargo xtask cluster` and `cargo xtask image`: a real Kubernetes cluster on this machine, and what runs in it.
//!
//! The programs of the cluster are built here, as Go modules; what is done with them is in `tests/src/cluster/`, which the
//! scenarios use as well.

mod build;
mod cache;
mod debian;
mod modules;

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};

use crate::prerequisites::Need;
use crate::{agent, command, console, ebpf, host, install, workspace};

pub use cache::ensure as ensure_programs;
pub use debian::fetch as fetch_packages;

/// The cluster that a command is about.
#[derive(Args)]
pub struct Named {
    /// Which cluster; there can be several at a time
    #[arg(long, default_value = "dev")]
    name: String,
}

/// How something is told.
#[derive(Clone, Copy, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    /// Start a cluster: a control plane and two nodes, each in namespaces of its own
    ///
    /// The programs of Kubernetes, containerd and etcd are compiled first, if this user has not yet done so: some twelve
    /// minutes on two cores, once. Nothing outside the cluster's namespaces, its cgroup and its directory is changed.
    Up {
        #[command(flatten)]
        cluster: Named,
    },
    /// Remove a cluster with everything in it, also one that is half dead
    Down {
        #[command(flatten)]
        cluster: Named,
    },
    /// Say which clusters there are, and which of their processes are alive
    Status {
        #[arg(long, default_value = "text")]
        output: Output,
    },
    /// Run kubectl as the cluster's administrator; its exit code is this command's
    Kubectl {
        #[command(flatten)]
        cluster: Named,
        /// Passed on to kubectl, for example `get pods --all-namespaces`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        args: Vec<OsString>,
    },
    /// Import an image (see `cargo xtask image`) on every node
    Load {
        #[command(flatten)]
        cluster: Named,
        /// An OCI archive
        archive: PathBuf,
    },
    /// Only compile the cluster's programs
    Build,
}

/// What an image is made of.
#[derive(Clone, Copy, ValueEnum)]
pub enum Content {
    /// The agent
    Agent,
    /// The program that plays the scenarios' scripts
    Probe,
    /// Debian packages with all that they depend on; see --packages
    Debian,
}

#[derive(Args)]
pub struct Image {
    #[arg(value_enum, default_value = "agent")]
    content: Content,
    /// Where to write the OCI archive
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The image's name, for example registry.example/sheath:1
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
    /// Debian packages, for example `nginx-light,curl`
    #[arg(long, value_delimiter = ',', required_if_eq("content", "debian"))]
    packages: Vec<String>,
}

pub fn run(command: Command) -> Result<()> {
    let up = ["up".into()];
    match command {
        Command::Build => ensure_programs().map(drop),
        Command::Up { cluster } => {
            host::require()?;
            install::ensure(&[Need::Scenarios])?;
            ensure_programs()?;
            become_program(&[&up[..], &[cluster.name.into()]].concat())
        }
        Command::Down { cluster } => become_program(&["down".into(), cluster.name.into()]),
        Command::Status { output } => become_program(&["status".into(), name_of(output).into()]),
        Command::Kubectl { cluster, args } => {
            ensure_programs()?;
            become_program(&[&["kubectl".into(), cluster.name.into()], &args[..]].concat())
        }
        Command::Load { cluster, archive } => {
            ensure_programs()?;
            let archive = std::path::absolute(archive)?;
            become_program(&["load".into(), cluster.name.into(), archive.into()])
        }
    }
}

/// Writes an image as an OCI archive.
pub fn image(image: Image) -> Result<()> {
    let output = std::path::absolute(&image.output)?;
    let tag = image.tag.unwrap_or_else(|| match image.content {
        Content::Agent => "sheath.dev/sheath:dev".to_owned(),
        Content::Probe => "sheath.dev/probe:dev".to_owned(),
        Content::Debian => format!("sheath.dev/{}:dev", image.packages.join("-")),
    });
    let mut args: Vec<OsString> = vec!["image".into(), output.into(), tag.into()];
    match image.content {
        Content::Agent => {
            args.extend(["agent".into(), agent::build_static()?.into()]);
        }
        Content::Probe => args.push("probe".into()),
        Content::Debian => {
            let packages =
                console::step("fetch Debian packages", || debian::fetch(&image.packages))?;
            args.extend(["debian".into(), packages.into()]);
        }
    }
    become_program(&args)
}

/// Writes the kinds of objects into the chart, and renders it.
pub fn manifests() -> Result<()> {
    ebpf::build()?;
    let mut sheath = command::cargo();
    sheath.args(["run", "--quiet", "--package", "sheath", "--bin", "sheath", "--"]);
    let definitions = command::output(sheath.args(["policy", "definitions"]))?;
    let path = workspace::root().join("deploy/helm/sheath/files/definitions.yaml");
    fs::write(&path, definitions).with_context(|| format!("cannot write {}", path.display()))?;
    ensure_programs()?;
    become_program(&["manifests".into()])
}

/// Becomes the program that does it, instead of starting it: exit code and signals are its own.
fn become_program(args: &[OsString]) -> Result<()> {
    let build = || {
        let mut command = command::cargo();
        command.args(["build", "--quiet", "--package", "sheath-tests", "--bins"]);
        command::run(&mut command)
    };
    build()?;
    let program = workspace::debug_program("cluster");
    let error = command::plain(&program).args(args).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

fn name_of(output: Output) -> &'static str {
    match output {
        Output::Text => "text",
        Output::Json => "json",
    }
}
