//! `cargo xtask package`: a Debian package and a tarball, the same bytes for the same sources, compiler and date.
//!
//! Debian's own dpkg-deb writes the package. It is where packages for Debian are made, checks what it is given, and needs
//! nothing that has to be kept up with Cargo, as cargo-deb would. What dpkg-deb does not do is said here: dates, modes and sums.

mod configuration_page;
mod contents;
mod debian;
mod linkage;
mod tree;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::prerequisites::Need;
use crate::{agent, command, console, install, workspace};

use contents::Layout;
use linkage::Linkage;
use tree::Tree;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a package is made of, and where it goes.
#[derive(clap::Args)]
pub struct Package {
    /// An agent that is built already, instead of one that is optimised and static; what it is linked with becomes
    /// dependencies
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// For arm64, on whatever machine this is
    #[arg(long, conflicts_with = "agent")]
    arm64: bool,
    /// Compress little, as tests do
    #[arg(long)]
    quick: bool,
    /// Where to write both; the directory is made
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// What is packaged.
struct Content {
    program: PathBuf,
    linkage: Linkage,
    /// Of everything in it.
    date: SystemTime,
    /// In little time, and large.
    quick: bool,
}

/// Makes both of an agent that is built already, for tests.
///
/// # Errors
/// As [`run`].
pub fn quickly(agent: PathBuf, output: PathBuf) -> Result<()> {
    run(Package { agent: Some(agent), arm64: false, quick: true, output: Some(output) })
}

/// Makes both.
///
/// # Errors
/// When something is missing, or a file cannot be written.
pub fn run(package: Package) -> Result<()> {
    install::ensure(&[Need::Package])?;
    let program = match package.agent {
        Some(program) => std::path::absolute(program)?,
        None if package.arm64 => agent::build_static_arm64()?,
        None => agent::build_static()?,
    };
    let output = package.output.map(std::path::absolute).transpose()?;
    let output = output.unwrap_or_else(|| workspace::target_dir().join("package"));
    fs::create_dir_all(&output).with_context(|| shown(&output))?;
    let (linkage, quick) = (Linkage::of(&program)?, package.quick);
    if linkage.architecture.emulator().is_some() {
        install::ensure(&[Need::Emulator])?;
    }
    let content = Content { program, linkage, date: date()?, quick };
    let made = [
        console::step("write the tarball", || tarball(&content, &output))?,
        console::step("write the Debian package", || debian::write(&content, &output))?,
    ];
    for package in made {
        let length = fs::metadata(&package).with_context(|| shown(&package))?.len();
        let mebibytes = length as f64 / f64::from(1 << 20);
        console::say(&format!("{} ({mebibytes:.1} MiB)", package.display()));
    }
    Ok(())
}

/// To be unpacked in /usr/local, without its first directory, which has the package's name.
fn tarball(content: &Content, output: &Path) -> Result<PathBuf> {
    let name = format!("sheath-{VERSION}-linux-{}", content.linkage.architecture.machine());
    let archive = output.join(format!("{name}.tar.gz"));
    let tree = Tree::new()?;
    contents::fill(&tree, &Layout::LOCAL.below(&name), content)?;
    tree.finish(content.date)?;
    let mut tar = command::plain("tar");
    tar.args(["--sort=name", "--format=ustar", "--owner=0", "--group=0", "--numeric-owner"]);
    // The name and the time of the compressed file would be in it.
    let level = if content.quick { 1 } else { 9 };
    tar.arg(format!("--use-compress-program=gzip -{level}n"));
    tar.args(["--create", "--file"]).arg(&archive);
    command::run(tar.arg("--directory").arg(tree.path()).arg(&name))?;
    Ok(archive)
}

/// What everything in a package is dated: <https://reproducible-builds.org/specs/source-date-epoch/>, or the last commit.
fn date() -> Result<SystemTime> {
    let said = match env::var("SOURCE_DATE_EPOCH") {
        Ok(said) => said,
        Err(_) => {
            let mut git = command::plain("git");
            command::output(git.args(["log", "-1", "--format=%ct"])).context(
                "no date for what is in the package: this is no git repository; set SOURCE_DATE_EPOCH",
            )?
        }
    };
    let seconds = said.trim().parse().with_context(|| format!("`{}` is no date", said.trim()))?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// What an error is about.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
