//! wrk in a pod: requests at a steady pace, for as long as somebody wants them.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Cluster;
use crate::names;

/// Where an image has wrk's script, and the script: without a pause, wrk would take the processor from all others.
pub const SCRIPT: (&str, &str) = (
    "/etc/wrk.lua",
    "function delay() return 50 end
function done(summary)
  local errors = summary.errors
  io.write(string.format(
    '{\"answered\":%d,\"connect\":%d,\"read\":%d,\"write\":%d,\"status\":%d,\"timeout\":%d}\\n',
    summary.requests, errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
",
);

/// Connections of each wrk. So it makes 40 requests in a second.
const CONNECTIONS: u8 = 2;

/// How long a request may take, in seconds.
const PATIENCE: u8 = 20;

/// How long a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// For as long as the server keeps it open.
    KeepAlive,
    /// For one request.
    Never,
}

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Requests {
    pub answered: u64,
    /// Connections that could not be made.
    pub connect: u64,
    /// Connections that ended without an answer, or in the middle of one, or while none was expected.
    pub read: u64,
    pub write: u64,
    /// Answers of 400 and above.
    pub status: u64,
    /// Answers after the patience.
    pub timeout: u64,
}

impl Requests {
    /// What wrk has said at its end.
    pub(super) fn said(said: &str) -> Result<Self> {
        let line = said.lines().find(|line| line.starts_with('{'));
        let line = line.with_context(|| format!("wrk does not say what it has seen: {said}"))?;
        serde_json::from_str(line).context("the requests")
    }

    pub fn failed(&self) -> u64 {
        self.connect + self.read + self.write + self.status + self.timeout
    }
}

/// The command, for a shell. It goes on until it is interrupted, and then says what it has seen.
pub(super) fn command(url: &str, reuse: Reuse) -> String {
    let close = match reuse {
        Reuse::KeepAlive => "",
        Reuse::Never => "-H 'Connection: close'",
    };
    let script = SCRIPT.0;
    // An hour is longer than any scenario.
    format!("wrk -t 1 -c {CONNECTIONS} -d 3600s --timeout {PATIENCE}s -s {script} {close} {url}")
}

/// wrk at work. Dropping it ends it.
pub struct Wrk<'c> {
    cluster: &'c Cluster,
    namespace: String,
    pod: String,
    /// Where its process number is, in the pod.
    pid: String,
    process: Child,
}

impl<'c> Wrk<'c> {
    /// Begins to send requests from a pod.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub fn start(
        cluster: &'c Cluster,
        namespace: &str,
        pod: &str,
        url: &str,
        reuse: Reuse,
    ) -> Result<Self> {
        let pid = format!("/tmp/{}", names::unique());
        let run = format!("echo $$ > {pid}; exec {}", command(url, reuse));
        let space = format!("--namespace={namespace}");
        let mut exec: Command =
            cluster.kubectl().command(["exec", &space, pod, "--", "sh", "-c", &run])?;
        exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = exec.spawn().context("cannot start kubectl")?;
        Ok(Self { cluster, namespace: namespace.to_owned(), pod: pod.to_owned(), pid, process })
    }

    /// Ends it, and returns what it has seen.
    ///
    /// # Errors
    /// When it has ended before, or says nothing.
    pub fn stop(mut self) -> Result<Requests> {
        ensure!(self.process.try_wait()?.is_none(), "wrk has ended: {}", self.said()?);
        self.interrupt()?;
        let said = self.said()?;
        self.process.wait().context("kubectl")?;
        Requests::said(&said)
    }

    /// As Ctrl-C does: wrk then tells.
    fn interrupt(&self) -> Result<()> {
        let kill = format!("read pid < {} && kill -INT $pid", self.pid);
        let kubectl = self.cluster.kubectl();
        kubectl.exec(&self.namespace, &self.pod, &["sh", "-c", &kill]).map(drop)
    }

    /// All that it says, to its end.
    fn said(&mut self) -> Result<String> {
        let mut said = String::new();
        if let Some(stdout) = &mut self.process.stdout {
            stdout.read_to_string(&mut said).context("wrk's output")?;
        }
        if let Some(stderr) = &mut self.process.stderr {
            stderr.read_to_string(&mut said).context("wrk's output")?;
        }
        Ok(said)
    }
}

impl Drop for Wrk<'_> {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.interrupt();
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
