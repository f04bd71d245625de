//! kubectl, on the machine of the control plane.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::machine::Machine;
use crate::{binaries, wait};

/// kubectl with a kubeconfig.
pub struct Kubectl<'c> {
    machine: &'c Machine,
    kubeconfig: PathBuf,
}

impl<'c> Kubectl<'c> {
    pub(super) fn new(machine: &'c Machine, kubeconfig: PathBuf) -> Self {
        Self { machine, kubeconfig }
    }

    /// The command, for those who want its input, output or exit code.
    ///
    /// # Errors
    /// When its cgroup cannot be made.
    pub fn command<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Command> {
        let mut command = self.machine.command("tools", binaries::cluster_program("kubectl"))?;
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        Ok(command)
    }

    /// Runs kubectl to its end, and returns what it has written.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        self.feed(arguments, "")
    }

    /// The same, with something on its standard input.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn feed<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: &str,
    ) -> Result<String> {
        let mut command = self.command(arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl's standard input")?;
        // One that has failed does not read; what it says is more to the point.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().context("cannot wait for kubectl")?;
        if !output.status.success() {
            let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {}: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Applies objects, in YAML or JSON.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply(&self, objects: &str) -> Result<()> {
        self.feed(["apply", "--filename=-"], objects).map(drop)
    }

    /// Objects, as the API server has them.
    ///
    /// # Errors
    /// When there are none.
    pub fn get<'a>(&self, what: impl IntoIterator<Item = &'a str>) -> Result<Value> {
        let arguments = ["get", "--output=json"].into_iter().chain(what);
        serde_json::from_str(&self.run(arguments)?).context("JSON of kubectl")
    }

    /// Waits for a condition, such as `condition=Available` of `deployment/web` in a namespace.
    ///
    /// # Errors
    /// When it does not come true in time; what is known of the namespace's pods is told.
    pub fn wait(
        &self,
        namespace: &str,
        condition: &str,
        what: &str,
        limit: Duration,
    ) -> Result<()> {
        let space = format!("--namespace={namespace}");
        // kubectl would fail at once if there was no such object yet; `wait` looks for interruption.
        let arguments = ["wait", &space, &format!("--for={condition}"), what, "--timeout=2s"]
            .map(str::to_owned);
        let mut last = None;
        let seen = wait::try_for(limit, || match self.run(&arguments) {
            Ok(_) => Some(()),
            Err(error) => {
                last = Some(error);
                None
            }
        });
        if seen.is_some() {
            return Ok(());
        }
        let pods = self.run(["get", "pods", &space, "--output=wide"]).unwrap_or_default();
        let events = self.run(["get", "events", &space]).unwrap_or_default();
        let error = last.unwrap_or_else(|| anyhow::anyhow!("no answer"));
        Err(error
            .context(format!("{what} {condition}: not seen within {limit:?}\n{pods}\n{events}")))
    }

    /// Waits until an event of a pod says all of these words. Returns what it says.
    ///
    /// # Errors
    /// When none does in time.
    pub fn wait_event(
        &self,
        namespace: &str,
        pod: &str,
        words: &[&str],
        limit: Duration,
    ) -> Result<String> {
        let space = format!("--namespace={namespace}");
        let says = |event: &Value| {
            let message = event["message"].as_str()?;
            let is_of_pod = event["involvedObject"]["name"] == pod;
            let says_all = words.iter().all(|word| message.contains(word));
            (is_of_pod && says_all).then(|| message.to_owned())
        };
        let seen = wait::try_for(limit, || {
            let events = self.get(["events", &space]).ok()?;
            events["items"].as_array()?.iter().find_map(says)
        });
        seen.with_context(|| format!("no event of {pod} says {words:?} within {limit:?}"))
    }

    /// Runs a program in a pod, and returns what it has written.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn exec(&self, namespace: &str, pod: &str, program: &[&str]) -> Result<String> {
        let space = format!("--namespace={namespace}");
        self.run(["exec", &space, pod, "--"].into_iter().chain(program.iter().copied()))
    }
}
