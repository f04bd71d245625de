//! Requests that go on whatever becomes of the API server, the kubelet and the runtime: wrk in a pod of its own, of which nobody is asked
//! who could be away.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::NodeName;
use super::scene::{Scene, nginx_line};
use super::wrk::{self, Requests, Reuse};
use crate::wait;

/// For wrk to say what it has seen.
const LIMIT: Duration = Duration::from_secs(30);

/// The pod, with one wrk for each of what it asks.
pub struct Steady<'s> {
    scene: &'s Scene<'s>,
    node: NodeName,
    uid: String,
    count: usize,
}

impl<'s> Steady<'s> {
    /// Makes the pod, with the service account `client`, and waits until it runs. Each wrk has connections of its own from the first
    /// request on, so whatever is asked should be served by then.
    ///
    /// # Panics
    /// When the cluster does not do what it is told.
    pub fn start(
        scene: &'s Scene<'_>,
        name: &str,
        node: NodeName,
        asked: &[(&str, Reuse)],
    ) -> Self {
        let said = |number: usize| format!("/tmp/said-{number}");
        let background = asked.iter().enumerate().map(|(number, (url, reuse))| {
            format!("{} > {} 2>&1 & ", wrk::command(url, *reuse), said(number))
        });
        // The first process, which stays.
        let script = background.collect::<String>() + &nginx_line("");
        let container = format!("command: [sh, -c, {script:?}]");
        let rest = "terminationGracePeriodSeconds: 1";
        let pod = scene.object(name, "client", node, rest, &container);
        scene.cluster.kubectl().apply(&pod).unwrap();
        scene.wait_running(name);
        let uid = scene.cluster.uid(&scene.namespace, name).unwrap();
        Self { scene, node, uid, count: asked.len() }
    }

    /// Ends it, and returns what each wrk has seen.
    ///
    /// # Errors
    /// When one has ended before, or says nothing.
    pub fn stop(self) -> Result<Vec<Requests>> {
        let processes = self.scene.cluster.pod_processes(self.node, &self.uid);
        let is_wrk = |pid: &&u32| name_of(**pid).is_some_and(|name| name == "wrk");
        let running: Vec<_> = processes.iter().filter(is_wrk).copied().collect();
        ensure!(running.len() == self.count, "{} of {} wrk run", running.len(), self.count);
        let first = processes.iter().find(|pid| name_of(**pid).is_some_and(|name| name == "nginx"));
        let root = format!("/proc/{}/root/tmp", first.context("the pod's first process")?);
        for pid in running {
            let pid = Pid::from_raw(i32::try_from(pid).context("a pid")?);
            kill(pid, Signal::SIGINT).context("wrk cannot be interrupted")?;
        }
        let requests = (0..self.count).map(|number| {
            let read = || fs::read_to_string(format!("{root}/said-{number}")).unwrap_or_default();
            let whole = wait::try_for(LIMIT, || Some(read()).filter(|said| said.contains('}')));
            Requests::said(&whole.unwrap_or_else(read))
        });
        requests.collect()
    }
}

fn name_of(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}
