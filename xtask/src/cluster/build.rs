//! Builds the cluster's programs, and says how far it is: cold, this takes minutes.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal, Write, stderr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::modules::Module;
use crate::{command, console, go};

/// How often progress is told: on a terminal, where one line is written anew, and elsewhere.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// As many lines of what a failed build says are shown.
const SHOWN_LINES: usize = 40;

/// Says what is about to be built, as it takes long.
pub fn announce(modules: &[&Module], cache: &Path) {
    let names: Vec<&str> = modules.iter().map(|module| module.name).collect();
    if !names.is_empty() {
        console::say(&format!(
            "These programs of the cluster are about to be compiled, once for this user: {}. All of them take about twelve minutes on \
             two cores. They are kept in {}.",
            names.join(", "),
            cache.display()
        ));
    }
}

/// Builds a module's programs into `bin`. `place` is which of how many.
///
/// # Errors
/// When the build fails; what the compiler said is printed.
pub fn one(module: &Module, place: (usize, usize), bin: &Path) -> Result<()> {
    let go = go::program()?;
    let names: Vec<&str> = module.programs.iter().map(|(_, name)| *name).collect();
    let title = format!("build {} ({} of {})", names.join(", "), place.0, place.1);
    console::step(&title, || build(&go, module, bin))
}

/// What `go build` is told about a module, but for where to put what it builds.
pub fn arguments(module: &Module) -> Result<Vec<String>> {
    let cgo = if module.cgo { "CGO_ENABLED=1" } else { "CGO_ENABLED=0" };
    let mut arguments = vec![cgo.to_owned(), "-trimpath".to_owned(), "-buildvcs=false".to_owned()];
    arguments.push(format!("-tags={}", module.tags));
    arguments.push(format!("-ldflags={}", module.linker_flags()?));
    Ok(arguments)
}

fn build(go: &Path, module: &Module, bin: &Path) -> Result<()> {
    let mut command = go_build(go, module)?;
    match module.programs {
        // `go build` would name it for the last part of its module's path.
        [(path, name)] => {
            command.arg("-o").arg(bin.join(name)).arg(format!("{}{path}", module.source));
        }
        programs => {
            command.arg("-o").arg(format!("{}/", bin.display()));
            command.args(programs.iter().map(|(path, _)| format!("{}{path}", module.source)));
        }
    }
    let mut child = command.spawn().context("cannot start go")?;
    let said = BufReader::new(child.stderr.take().context("go's standard error")?);
    let last = follow(module.name, said)?;
    let status = child.wait().context("cannot wait for go")?;
    if !status.success() {
        console::say(&Vec::from(last).join("\n"));
        bail!("`go build` failed in {} ({status})", module.dir().display());
    }
    Ok(())
}

fn go_build(go: &Path, module: &Module) -> Result<Command> {
    let mut command = command::plain(go);
    let arguments = arguments(module)?;
    for name in ["GOFLAGS", "GOOS", "GOARCH", "GOEXPERIMENT", "GOAMD64"] {
        command.env_remove(name);
    }
    if let Some((cgo, value)) = arguments[0].split_once('=') {
        command.env(cgo, value);
    }
    command.env("GOTOOLCHAIN", "local").env("GOWORK", "off");
    command.args(["build", "-v", "-mod=readonly"]).args(&arguments[1..]);
    command.current_dir(module.dir()).stdin(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

/// Counts the packages that are named while they are compiled. Returns the last lines that say something else.
fn follow(name: &str, said: impl BufRead) -> Result<VecDeque<String>> {
    let is_terminal = stderr().is_terminal();
    let interval = if is_terminal { INTERVALS.0 } else { INTERVALS.1 };
    let (mut compiled, mut fetched, mut last) = (0_u32, 0_u32, VecDeque::new());
    let mut told = Instant::now();
    for line in said.lines() {
        let line = line.context("cannot read what go says")?;
        if line.starts_with("go: downloading ") {
            fetched += 1;
        } else if line.contains([' ', '\t']) {
            last.push_back(line);
            if last.len() > SHOWN_LINES {
                last.pop_front();
            }
        } else {
            compiled += 1;
        }
        if told.elapsed() >= interval {
            told = Instant::now();
            let progress =
                format!("    {name}: {fetched} modules fetched, {compiled} packages compiled");
            let (start, end) = if is_terminal { ("\r", "") } else { ("", "\n") };
            let _ = write!(stderr(), "{start}{progress}{end}");
        }
    }
    if is_terminal {
        let _ = write!(stderr(), "\r\x1b[K");
    }
    Ok(last)
}
