//! `cargo xtask fuzz`: builds the fuzz targets and runs them.
//!
//! A target is a file in `fuzz/targets`, its seeds are the files in `fuzz/corpus/<target>`. What a run makes
//! stays out of the tree: inputs worth keeping, inputs that crash and logs are below `target/fuzz`.

use std::fs::{self, File};
use std::path::{Path, PathBuf, absolute};
use std::process::{Child, Command, Stdio};
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::prerequisites::Need;
use crate::{command, console, ebpf, install, workspace};

/// How long each target runs as a part of the tests.
const SHORT: u64 = 5;

/// `cargo xtask fuzz`.
pub fn run(seconds: u64, target: Option<String>, inputs: &[PathBuf]) -> Result<()> {
    let mut targets = targets()?;
    if let Some(name) = target {
        targets.retain(|target| target.name == name);
        if targets.is_empty() {
            bail!("there is no fuzz target {name} in fuzz/targets");
        }
    }
    install::ensure(&[Need::Bpf, Need::Fuzz])?;
    // The targets are linked with the agent, which embeds the BPF object.
    ebpf::build()?;
    build(&targets)?;
    if inputs.is_empty() {
        fuzz(&targets, seconds)
    } else {
        targets.iter().try_for_each(|target| target.replay(inputs))
    }
}

/// The part of `cargo xtask test`, which has installed and built everything else.
pub fn briefly() -> Result<()> {
    let targets = targets()?;
    build(&targets)?;
    fuzz(&targets, SHORT)
}

/// Builds the targets, and puts each where it is found by its name.
fn build(targets: &[Target]) -> Result<()> {
    console::step("build fuzz targets", || {
        let dir = workspace::fuzz_dir();
        // Built as tests, together with these, their dependencies have the features that the tests' have: they are there.
        let mut command = command::cargo();
        command.args(["test", "--no-run", "--workspace", "--exclude", "sheath-ebpf"]);
        command.args(targets.iter().flat_map(|target| ["--test", &target.name]));
        command.arg("--config").arg(dir.join("instrumented.toml"));
        command.env("RUSTC_WRAPPER", dir.join("rustc"));
        command.args(["--message-format", "json-render-diagnostics"]);
        let messages = command::output(&mut command)?;
        for target in targets {
            let built = program_in(&messages, &target.name)
                .with_context(|| format!("cargo has not built {}", target.name))?;
            let program = target.program()?;
            fs::copy(&built, &program)
                .with_context(|| format!("cannot write {}", program.display()))?;
        }
        Ok(())
    })
}

/// The program of a test, as cargo's messages name it.
fn program_in(messages: &str, test: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_its = message["target"]["kind"][0] == "test" && message["target"]["name"] == test;
        message["executable"].as_str().filter(|_| is_its).map(PathBuf::from)
    })
}

/// Runs every target for so many seconds, as many of them at a time as there are CPUs.
fn fuzz(targets: &[Target], seconds: u64) -> Result<()> {
    let at_once = available_parallelism().map_or(1, usize::from);
    console::step(&format!("fuzz for {seconds} s each: {}", names(targets)), || {
        let mut failures = Vec::new();
        for batch in targets.chunks(at_once) {
            let running: Vec<_> = batch.iter().map(|target| target.start(seconds)).collect();
            for (target, child) in batch.iter().zip(running) {
                failures.extend(target.finish(child?)?);
            }
        }
        if !failures.is_empty() {
            bail!("{}", failures.join("\n"));
        }
        Ok(())
    })
}

fn names(targets: &[Target]) -> String {
    targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn targets() -> Result<Vec<Target>> {
    let sources = workspace::fuzz_dir().join("targets");
    let files = fs::read_dir(&sources).with_context(|| format!("no {}", sources.display()))?;
    let mut names: Vec<String> = files
        .filter_map(|file| file.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    Ok(names.into_iter().map(|name| Target { name }).collect())
}

struct Target {
    name: String,
}

impl Target {
    /// Makes new inputs out of the seeds and of what earlier runs have kept.
    fn start(&self, seconds: u64) -> Result<Child> {
        let grown = self.own_dir("corpus")?;
        let log = File::create(self.log()?)?;
        let mut command = self.command()?;
        command.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
        command
            .args(["-verbosity=0", "-print_funcs=0"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // libFuzzer writes to the first directory alone.
        command.arg(grown).arg(workspace::fuzz_dir().join("corpus").join(&self.name));
        command.spawn().with_context(|| format!("cannot start {}", self.name))
    }

    /// Waits for the end of a run. A failure is told in one line, after the target's own words.
    fn finish(&self, mut child: Child) -> Result<Option<String>> {
        let status = child.wait()?;
        let log = fs::read(self.log()?)?;
        let log = String::from_utf8_lossy(&log);
        if status.success() {
            let inputs = after(&log, "stat::number_of_executed_units:").unwrap_or("no");
            console::say(&format!("    {}: {inputs} inputs", self.name));
            return Ok(None);
        }
        console::say(log.trim_end());
        let name = &self.name;
        Ok(Some(match after(&log, "Test unit written to") {
            Some(input) => {
                let input = Path::new(input);
                let input = input.strip_prefix(workspace::root()).unwrap_or(input).display();
                format!("{name} fails on {input}; once more: cargo xtask fuzz {name} {input}")
            }
            None => format!("{name} did not run ({status})"),
        }))
    }

    fn replay(&self, inputs: &[PathBuf]) -> Result<()> {
        console::step(&format!("run {}", self.name), || {
            let inputs = inputs.iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
            if let Some(missing) = inputs.iter().find(|input| !input.is_file()) {
                bail!("there is no file {}", missing.display());
            }
            command::run(self.command()?.args(inputs))
        })
    }

    /// The compiled target, with the limits for one input and the place for inputs that break it.
    fn command(&self) -> Result<Command> {
        let mut command = command::plain(self.program()?);
        let artifacts = self.own_dir("artifacts")?;
        command.args(["-timeout=10", "-rss_limit_mb=1024"]);
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        Ok(command)
    }

    fn log(&self) -> Result<PathBuf> {
        Ok(self.own_dir("logs")?.join("log"))
    }

    fn program(&self) -> Result<PathBuf> {
        Ok(self.own_dir("program")?.join(&self.name))
    }

    /// A directory for what a run of this target leaves behind.
    fn own_dir(&self, kind: &str) -> Result<PathBuf> {
        let dir = workspace::target_dir().join("fuzz").join(&self.name).join(kind);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(dir)
    }
}

/// What follows the last of a label, up to the end of its line.
fn after<'l>(log: &'l str, label: &str) -> Option<&'l str> {
    let (_, rest) = log.rsplit_once(label)?;
    rest.lines().next().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crashing_input_is_found_in_libfuzzers_words() {
        let log = "==1== ERROR: libFuzzer: deadly signal\n0xa,\n\\012\n\
                   artifact_prefix='/t/'; Test unit written to /t/crash-adc83b19\nBase64: Cg==\n";
        assert_eq!(after(log, "Test unit written to"), Some("/t/crash-adc83b19"));
        assert_eq!(after("INFO: Seed: 1\n", "Test unit written to"), None);
    }

    #[test]
    fn a_target_is_found_in_cargos_words() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"leaf"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"leaf"},"executable":"/t/leaf-1f"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(program_in(messages, "leaf"), Some("/t/leaf-1f".into()));
        assert_eq!(program_in(messages, "pem"), None);
    }

    #[test]
    fn cargo_knows_every_target() {
        let manifest = fs::read_to_string(workspace::fuzz_dir().join("Cargo.toml")).unwrap();
        for Target { name } in targets().unwrap() {
            let entry =
                format!(r#"{{ name = "{name}", path = "targets/{name}.rs", harness = false }}"#);
            assert!(manifest.contains(&entry), "fuzz/Cargo.toml lacks {entry}");
        }
    }

    #[test]
    fn every_target_has_seeds() {
        for target in targets().unwrap() {
            let seeds = workspace::fuzz_dir().join("corpus").join(&target.name);
            assert!(
                fs::read_dir(&seeds).is_ok_and(|mut files| files.next().is_some()),
                "{seeds:?}"
            );
        }
    }
}
