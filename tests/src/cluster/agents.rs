//! Agents on the nodes of a cluster, as a service of the host is: outside of any pod.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::names::{self, PODS};
use super::turn::Turn;
use super::{Cluster, NODES, NodeName};
use crate::binaries;
use crate::status::{Access, Status};
use crate::wait::{self, GENEROUS};

/// The agents' service account, and its namespace.
pub(super) const ACCOUNT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: node-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: agent, namespace: node-system}
";

/// What the account may do, and nothing else.
const RIGHTS: &str = "
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: node-agent}
rules:
- {apiGroups: [''], resources: [pods, namespaces], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: node-agent}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: node-agent}
subjects: [{kind: ServiceAccount, name: agent, namespace: node-system}]
";

/// The trust domain of a cluster's agents.
pub const TRUST_DOMAIN: &str = "cluster.test";

/// An agent on each node; they end, and their pins with them, when this is dropped.
pub struct Agents<'t> {
    turn: &'t Turn<'t>,
    agents: [NodeAgent; 2],
    _dir: TempDir,
}

struct NodeAgent {
    node: NodeName,
    config: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

impl<'t> Agents<'t> {
    /// Starts them, and waits until both are ready. Pods of these namespaces and service accounts are expected wherever pods
    /// are.
    ///
    /// # Errors
    /// When one does not start, with the end of its log.
    pub fn start(turn: &'t Turn<'_>, accounts: &[(&str, &str)]) -> Result<Self> {
        Self::start_with(turn, accounts, |_, _| Ok(()))
    }

    /// The same, with changed configurations.
    ///
    /// # Errors
    /// As [`Self::start`], and if `change` fails.
    pub fn start_with(
        turn: &'t Turn<'_>,
        accounts: &[(&str, &str)],
        change: impl Fn(NodeName, &mut Value) -> Result<()>,
    ) -> Result<Self> {
        let cluster = turn.cluster;
        let dir = tempfile::tempdir().context("a directory for the agents")?;
        let ca = dir.path().join("ca");
        let init = Command::new(binaries::sheath())
            .args(["ca", "init", "--trust-domain", TRUST_DOMAIN, "--dir"])
            .arg(&ca)
            .stdout(Stdio::null())
            .status()
            .context("cannot run sheath")?;
        ensure!(init.success(), "no CA");
        cluster.kubectl().apply(&[ACCOUNT, RIGHTS].concat())?;
        let kubeconfig = kubeconfig(cluster, dir.path(), "agent")?;
        let agents = NODES.map(|node| {
            let path = |what: &str| dir.path().join(format!("{}.{what}", node.as_str()));
            let agent = NodeAgent { node, config: path("yaml"), log: path("log"), process: None };
            let mut config = configuration(cluster, node, &ca, &kubeconfig, accounts);
            change(node, &mut config)?;
            fs::write(&agent.config, config.to_string()).context("a configuration")?;
            anyhow::Ok(agent)
        });
        let [a, b] = agents;
        let agents = [a?, b?];
        let mut this = Self { turn, agents, _dir: dir };
        for node in NODES {
            this.launch(node)?;
        }
        Ok(this)
    }

    /// Starts the agent of a node, and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time, with the end of its log.
    pub fn launch(&mut self, node: NodeName) -> Result<()> {
        let machine = self.turn.cluster.node(node);
        let agent = self.agent(node);
        let log = File::options().create(true).append(true).open(&agent.log).context("a log")?;
        let mut command = machine.command("sheath", binaries::sheath())?;
        command.args(["run", "--config"]).arg(&agent.config);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let from = fs::metadata(&agent.log).map_or(0, |log| log.len()) as usize;
        let process = command.spawn().context("cannot start the agent")?;
        self.agent_mut(node).process = Some(process);
        let log = self.log(node);
        let ready = wait::try_for(GENEROUS, || {
            let text = fs::read(&log).ok()?;
            let text = String::from_utf8_lossy(text.get(from..)?).into_owned();
            text.contains("\"message\":\"ready\"").then_some(())
        });
        ensure!(ready.is_some(), "the agent is not ready: {}", super::tail(&log, 20));
        Ok(())
    }

    /// Kills the agent of a node with SIGKILL.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self, node: NodeName) {
        let mut process = self.agent_mut(node).process.take().expect("a running agent");
        process.kill().expect("SIGKILL");
        process.wait().expect("the end of the agent");
    }

    /// What the agent of a node says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self, node: NodeName) -> Result<Status> {
        let mut command = self.turn.cluster.node(node).command("tools", binaries::sheath())?;
        command.args(["status", "--output", "json", "--config"]).arg(&self.agent(node).config);
        let output = command.output().context("cannot run sheath")?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("sheath status: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Waits until the agent of a node says so.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for_status(&self, node: NodeName, what: &str, is_so: impl Fn(&Status) -> bool) {
        wait::wait_until(what, GENEROUS, || self.status(node).is_ok_and(|status| is_so(&status)));
    }

    fn log(&self, node: NodeName) -> PathBuf {
        self.agent(node).log.clone()
    }

    /// The flows that a node's agent has logged.
    ///
    /// # Panics
    /// If there is no log.
    pub fn access(&self, node: NodeName) -> Vec<Access> {
        let log = fs::read_to_string(self.log(node)).expect("the agent's log");
        log.lines().filter_map(Access::parse).collect()
    }

    fn agent(&self, node: NodeName) -> &NodeAgent {
        let [a, b] = &self.agents;
        if a.node == node { a } else { b }
    }

    fn agent_mut(&mut self, node: NodeName) -> &mut NodeAgent {
        let [a, b] = &mut self.agents;
        if a.node == node { a } else { b }
    }
}

impl Drop for Agents<'_> {
    fn drop(&mut self) {
        self.turn.tell();
        for node in NODES {
            if std::thread::panicking() {
                let name = node.as_str();
                eprintln!("--- last lines of {name}'s agent\n{}", super::tail(&self.log(node), 20));
            }
            if self.agent(node).process.is_some() {
                self.kill(node);
            }
            // The pins would hold the node's pods.
            let cleanup = self.turn.cluster.node(node).command("tools", binaries::sheath());
            let Ok(mut cleanup) = cleanup else { continue };
            cleanup.args(["cleanup", "--config"]).arg(&self.agent(node).config);
            let _ = cleanup.stdout(Stdio::null()).status();
        }
    }
}

/// A kubeconfig with a service account of Sheath's namespace.
pub(super) fn kubeconfig(cluster: &Cluster, dir: &Path, account: &str) -> Result<PathBuf> {
    let kubectl = cluster.kubectl();
    let token = kubectl.run(["create", "token", account, "--namespace=node-system"])?;
    let admin = kubectl.run(["config", "view", "--raw", "--output=json"])?;
    let mut config: Value =
        serde_json::from_str(&admin).context("the administrator's kubeconfig")?;
    let users = config["users"].as_array_mut().context("users")?;
    for user in users {
        user["user"] = json!({"token": token.trim()});
    }
    let path = dir.join("kubeconfig");
    fs::write(&path, config.to_string()).context("the kubeconfig")?;
    Ok(path)
}

fn configuration(
    cluster: &Cluster,
    node: NodeName,
    ca: &Path,
    kubeconfig: &Path,
    accounts: &[(&str, &str)],
) -> Value {
    let cgroup = cluster.cgroup(node);
    let id = |(namespace, account): &(&str, &str)| {
        format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}")
    };
    let ids: Vec<_> = accounts.iter().map(id).collect();
    json!({
        "trustDomain": TRUST_DOMAIN,
        "node": node.as_str(),
        "instance": names::instance(cluster.name(), node),
        "identity": {"ca": {"dir": ca}},
        "capture": {"cgroup": cgroup, "pods": {"root": format!("{cgroup}/kubepods")}},
        "log": {"format": "json"},
        "kubernetes": {"kubeconfig": kubeconfig, "kubelet": {"cgroup": format!("{cgroup}/kubelet")}},
        "peers": [{"match": [PODS.0, PODS.1], "spiffeIds": ids}],
    })
}
