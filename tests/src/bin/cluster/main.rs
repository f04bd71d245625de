//! What `cargo xtask cluster` and `cargo xtask image` do with the programs that they have built. A user calls those.

mod image;
mod show;

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use sheath_tests::cluster::{self, Cluster, helm, status};
use sheath_tests::wait;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["up", name] => up(name),
        ["down", name] => down(name),
        ["status", "text"] => show::text(&status::all()),
        ["status", "json"] => show::json(&status::all()),
        ["kubectl", name, arguments @ ..] => kubectl(name, arguments),
        ["load", name, archive] => Cluster::find(name)?.load(Path::new(archive)),
        ["manifests"] => manifests(),
        ["inherit", name] => inherit(name),
        ["image", output, tag, content @ ..] => image::write(Path::new(output), tag, content),
        _ => bail!("called by `cargo xtask cluster` and `cargo xtask image`; see their --help"),
    }
}

fn up(name: &str) -> Result<()> {
    if status::all().iter().any(|one| one.name == name && one.healthy) {
        eprintln!("cluster {name} is up already");
        return Ok(());
    }
    wait::interrupt_on(&[Signal::SIGINT, Signal::SIGTERM]).expect("a signal handler");
    let start = Instant::now();
    let cluster = Cluster::up(name, None)?;
    eprintln!("cluster {name}: up in {:.1} s", start.elapsed().as_secs_f64());
    eprintln!("  cargo xtask cluster kubectl{} get nodes --output wide", show::option(name));
    eprintln!("  cargo xtask cluster down{}", show::option(name));
    eprintln!("  logs and certificates: {}", cluster.dir().display());
    Ok(())
}

fn down(name: &str) -> Result<()> {
    let was_there = cluster::remove(name)?;
    eprintln!("cluster {name}: {}", if was_there { "removed" } else { "there is none" });
    Ok(())
}

fn manifests() -> Result<()> {
    let path = helm::manifests();
    fs::write(&path, helm::render()?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("wrote {}", path.canonicalize().unwrap_or(path).display());
    Ok(())
}

/// Becomes kubectl: exit code and signals are its own.
fn kubectl(name: &str, arguments: &[&str]) -> Result<()> {
    let cluster = Cluster::find(name)?;
    let error = cluster.kubectl().command(arguments)?.exec();
    Err(error).context("cannot start kubectl")
}

/// Waits until whoever started this has ended, and takes its cluster down.
fn inherit(name: &str) -> Result<()> {
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).context("cannot wait for the end of the process")?;
    cluster::remove(name).map(drop)
}
