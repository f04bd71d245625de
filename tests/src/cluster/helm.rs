//! The chart, as users install it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::image::Image;
use super::turn::Turn;
use super::{Cluster, NodeName};
use crate::binaries;
use crate::status::{Access, Status};

/// Where it is installed.
pub const NAMESPACE: &str = "sheath-system";
/// What it is installed as.
pub const RELEASE: &str = "sheath";

/// The image's name, without and with its tag.
const REPOSITORY: &str = "sheath.dev/sheath";
const TAG: &str = "test";

/// What nodes lack whose root has not all capabilities.
const CAPABILITIES: [(&str, u32); 11] = [
    ("BPF", 39),
    ("PERFMON", 38),
    ("NET_ADMIN", 12),
    ("SYS_ADMIN", 21),
    ("SYS_PTRACE", 19),
    ("DAC_READ_SEARCH", 2),
    ("NET_BIND_SERVICE", 10),
    ("SYS_RESOURCE", 24),
    ("IPC_LOCK", 14),
    ("SETUID", 7),
    ("SETGID", 6),
];

/// The chart's directory.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/sheath")
}

/// The chart as it is with its own values, for those who have no Helm.
pub fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests/sheath.yaml")
}

const HEADER: &str = "\
# The chart in deploy/helm/sheath with its own values, for `kubectl apply --server-side --filename`. Made by `cargo xtask manifests`.
# What Helm would do when it is uninstalled is for you to do: `sheath cleanup` on each node, or pods stay refused.
apiVersion: v1
kind: Namespace
metadata:
  name: sheath-system
  labels:
    pod-security.kubernetes.io/enforce: privileged
";

/// What [`manifests`] has to be.
///
/// # Errors
/// When the chart cannot be rendered.
pub fn render() -> Result<String> {
    let mut helm = Command::new(binaries::cluster_program("helm"));
    helm.args(["template", RELEASE, "--namespace", NAMESPACE, "--no-hooks"]).arg(chart());
    let output = helm.stdin(Stdio::null()).output().context("cannot start helm")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm template: {}", said.trim());
    let rendered = String::from_utf8(output.stdout).context("UTF-8 of helm")?;
    Ok(format!("{HEADER}{rendered}"))
}

/// Sheath, installed in a cluster. It is uninstalled when this is dropped.
pub struct Release<'t> {
    turn: &'t Turn<'t>,
    is_installed: bool,
}

impl<'t> Release<'t> {
    /// Installs it with the agent's own image, and waits until every agent and the controller are ready. `more` are
    /// further values.
    ///
    /// # Errors
    /// When it cannot be installed, or is not ready in time; what is known of its pods is told.
    pub fn install(turn: &'t Turn<'_>, more: &Value) -> Result<Self> {
        let image = format!("{REPOSITORY}:{TAG}");
        turn.cluster.load_once(&image, || Image::of_programs(&image, &[binaries::sheath()]))?;
        let release = Self { turn, is_installed: true };
        release.upgrade(more)?;
        Ok(release)
    }

    /// Installs it anew with other values.
    ///
    /// # Errors
    /// As for [`Self::install`].
    pub fn upgrade(&self, more: &Value) -> Result<()> {
        let mut values = values(self.turn.cluster)?;
        merge(&mut values, more);
        let path = self.turn.cluster.state.at("values.json");
        fs::write(&path, values.to_string()).context("cannot write the values")?;
        let path = path.display().to_string();
        let chart = chart().display().to_string();
        let arguments = [
            "upgrade",
            "--install",
            "--create-namespace",
            "--wait",
            "--timeout=180s",
            "--values",
            &path,
            RELEASE,
            &chart,
        ];
        self.helm(&arguments).map(drop).map_err(|error| error.context(self.pods()))
    }

    /// Runs helm in the release's namespace, and returns what it has written.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let output = helm(self.turn.cluster, arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm {}: {}", arguments[0], said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Removes it, as users do.
    ///
    /// # Errors
    /// When that fails.
    pub fn uninstall(mut self) -> Result<()> {
        self.is_installed = false;
        self.helm(&["uninstall", RELEASE, "--wait", "--timeout=240s"])
            .map(drop)
            .map_err(|error| error.context(self.pods()))
    }

    /// How many of its pods are ready.
    ///
    /// # Errors
    /// When the API server does not tell.
    pub fn ready_pods(&self) -> Result<usize> {
        let space = format!("--namespace={NAMESPACE}");
        let pods = self.turn.cluster.kubectl().get(["pods", &space])?;
        let pods = pods["items"].as_array().context("pods")?;
        let is_ready = |pod: &&Value| pod["status"]["containerStatuses"][0]["ready"] == true;
        Ok(pods.iter().filter(is_ready).count())
    }

    /// The name of a node's agent pod: while one takes over from another, that of the one that stays.
    ///
    /// # Errors
    /// When there is none.
    pub fn agent(&self, node: NodeName) -> Result<String> {
        let space = format!("--namespace={NAMESPACE}");
        let on_node = format!("--field-selector=spec.nodeName={}", node.as_str());
        let label = "--selector=app.kubernetes.io/component=agent";
        let pods = self.turn.cluster.kubectl().get(["pods", &space, &on_node, label])?;
        let pods = pods["items"].as_array().context("pods")?;
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let pod = pods.iter().find(stays).or(pods.first()).context("an agent's pod")?;
        Ok(pod["metadata"]["name"].as_str().context("a name")?.to_owned())
    }

    /// What a node's agent says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self, node: NodeName) -> Result<Status> {
        let command = ["sheath", "status", "--output", "json"];
        let said = self.turn.cluster.kubectl().exec(NAMESPACE, &self.agent(node)?, &command)?;
        serde_json::from_str(&said).context("a status")
    }

    /// The same, without the API server and the kubelet: asked on the node itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status_on_node(&self, node: NodeName) -> Result<Status> {
        let cluster = self.turn.cluster;
        let mut command = cluster.node(node).command("tools", binaries::sheath())?;
        let instance = super::names::instance(cluster.name(), node);
        command.args(["status", "--output", "json", "--run-dir", "/run/sheath", "--instance"]);
        let output = command.arg(instance).output().context("cannot run sheath")?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("sheath status: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// What a node's agent has logged.
    ///
    /// # Errors
    /// When there is none.
    fn log(&self, node: NodeName) -> Result<String> {
        let space = format!("--namespace={NAMESPACE}");
        self.turn.cluster.kubectl().run(["logs", &self.agent(node)?, &space])
    }

    /// The flows that a node's agent has logged.
    ///
    /// # Errors
    /// As [`Self::log`].
    pub fn access(&self, node: NodeName) -> Result<Vec<Access>> {
        Ok(self.log(node)?.lines().filter_map(Access::parse).collect())
    }

    /// The state of its pods, for those who have to find out what went wrong.
    fn pods(&self) -> String {
        let space = format!("--namespace={NAMESPACE}");
        let kubectl = self.turn.cluster.kubectl();
        let ask = |what: &[&str]| kubectl.run(what.iter().copied().chain([&*space]));
        let events = ["get", "events", "--sort-by=.lastTimestamp"];
        let mut told = vec![
            ask(&["get", "pods", "--output=wide"]).unwrap_or_default(),
            ask(&events).unwrap_or_default(),
        ];
        for component in ["agent", "controller"] {
            let label = format!("--selector=app.kubernetes.io/component={component}");
            told.push(ask(&["logs", &label, "--prefix", "--tail=8"]).unwrap_or_default());
        }
        told.join("\n")
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        if !self.is_installed {
            return;
        }
        self.turn.tell();
        if std::thread::panicking() {
            eprintln!("{}", self.pods());
        }
        if let Err(error) = self.helm(&["uninstall", RELEASE, "--wait", "--timeout=240s"]) {
            eprintln!("error: the chart is left: {error:#}");
        }
    }
}

/// Runs helm.
///
/// # Errors
/// When it cannot be started.
pub fn helm(cluster: &Cluster, arguments: &[&str]) -> Result<Output> {
    let mut command = cluster.command("helm")?;
    command.args(arguments).arg(format!("--namespace={NAMESPACE}"));
    // What it keeps is of no use to anybody else.
    let home = cluster.state.make_dir("helm")?;
    command.env("HOME", &home).stdin(Stdio::null());
    command.output().context("cannot start helm")
}

/// What a cluster of several nodes on one machine needs, and tests want.
fn values(cluster: &Cluster) -> Result<Value> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let bound = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bound = u64::from_str_radix(bound.context("a bounding set")?.trim(), 16)?;
    let has = |bit: u32| bound & (1 << bit) != 0;
    let capabilities: Vec<_> =
        CAPABILITIES.iter().filter(|(_, bit)| has(*bit)).map(|(name, _)| *name).collect();
    Ok(json!({
        "trustDomain": super::agents::TRUST_DOMAIN,
        "image": {"repository": REPOSITORY, "tag": TAG, "pullPolicy": "Never"},
        "agent": {
            "capabilities": capabilities,
            // Pins are the machine's, which has several nodes.
            "env": [{"name": "SHEATH_INSTANCE", "value": format!("{}-$(SHEATH_NODE)", cluster.name())}],
            "drain": "2s",
            "terminationGracePeriodSeconds": 10,
        },
    }))
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}
