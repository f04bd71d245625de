//! The log of an agent, read for as long as it writes: that of a pod that is gone is gone as well.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::NodeName;
use super::helm::{NAMESPACE, Release};
use super::turn::Turn;
use crate::status::Access;

/// The log of a node's agent. Dropping it leaves off.
pub struct Followed {
    path: PathBuf,
    kubectl: Child,
}

impl Followed {
    /// Follows the log of the agent that a node has now.
    ///
    /// # Errors
    /// When there is none, or kubectl cannot be started.
    pub fn start(turn: &Turn<'_>, release: &Release<'_>, node: NodeName) -> Result<Self> {
        let agent = release.agent(node)?;
        let path = turn.cluster.state.at(format!("{agent}.log"));
        let file = File::create(&path).context("cannot write an agent's log")?;
        let space = format!("--namespace={NAMESPACE}");
        let mut logs = turn.cluster.kubectl().command(["logs", "--follow", &agent, &space])?;
        logs.stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
        let kubectl = logs.spawn().context("cannot start kubectl")?;
        Ok(Self { path, kubectl })
    }

    /// The flows that have not ended well, in the agent's own words.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn failed(&self) -> Result<Vec<String>> {
        let log = fs::read_to_string(&self.path).context("cannot read an agent's log")?;
        let failed = |line: &&str| Access::parse(line).is_some_and(|flow| flow.outcome != "ok");
        Ok(log.lines().filter(failed).map(str::to_owned).collect())
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
        let _ = fs::remove_file(&self.path);
    }
}
