//! A controller on a node of a cluster, with rights of its own and no more, and what agents need to call it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::agents::{ACCOUNT, TRUST_DOMAIN, kubeconfig};
use super::turn::Turn;
use super::{NODES, NodeName, PAUSE_IMAGE};
use crate::binaries;
use crate::wait::{self, GENEROUS};

/// What the controller's service account may do, and nothing else. Its Lease, Secret and ConfigMap it makes itself.
const RIGHTS: &str = "
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: sheath-controller, namespace: node-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: node-controller}
rules:
- {apiGroups: [''], resources: [pods, namespaces, services, nodes], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
- {apiGroups: [networking.k8s.io], resources: [servicecidrs], verbs: [list, watch]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create]}
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: node-controller}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: node-controller}
subjects: [{kind: ServiceAccount, name: sheath-controller, namespace: node-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: sheath-controller, namespace: node-system}
rules:
- {apiGroups: [''], resources: [secrets], resourceNames: [sheath-ca], verbs: [get, update]}
- {apiGroups: [''], resources: [configmaps], resourceNames: [sheath-roots], verbs: [get, update]}
- {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [sheath-controller], verbs: [get, update]}
- {apiGroups: [''], resources: [secrets, configmaps], verbs: [create]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: sheath-controller, namespace: node-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: sheath-controller}
subjects: [{kind: ServiceAccount, name: sheath-controller, namespace: node-system}]
";

const PORT: u16 = 15443;

/// A controller that runs on the first node. It ends, and what it has made with it, when this is dropped.
pub struct Controller<'t> {
    turn: &'t Turn<'t>,
    process: Option<Child>,
    dir: TempDir,
}

impl<'t> Controller<'t> {
    /// Starts it, and waits until it has published its roots.
    ///
    /// # Errors
    /// When it does not, with the end of its log.
    pub fn start(turn: &'t Turn<'_>) -> Result<Self> {
        let cluster = turn.cluster;
        let dir = tempfile::tempdir().context("a directory for the controller")?;
        cluster.kubectl().apply(&[ACCOUNT, RIGHTS].concat())?;
        let [node, _] = NODES;
        let address = node.addresses().v4;
        let settings = json!({
            "trustDomain": TRUST_DOMAIN,
            "listen": format!("{address}:{PORT}"),
            "advertise": format!("{address}:{PORT}"),
            "name": "controller-0",
            "namespace": "node-system",
            "kubeconfig": kubeconfig(cluster, dir.path(), "sheath-controller")?,
            "agentServiceAccount": "node-system/agent",
            "log": {"format": "json"},
        });
        fs::write(dir.path().join("controller.yaml"), settings.to_string())
            .context("the controller's settings")?;
        let mut this = Self { turn, process: None, dir };
        this.remove_objects();
        for node in NODES {
            this.make_agents_pod(node)?;
        }
        this.launch()?;
        Ok(this)
    }

    /// # Errors
    /// When it does not publish its roots in time.
    pub fn launch(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log()).context("a log")?;
        let machine = self.turn.cluster.node(NODES[0]);
        let mut command = machine.command("sheath-controller", binaries::sheath())?;
        command.args(["controller", "--config"]).arg(self.dir.path().join("controller.yaml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn().context("cannot start the controller")?);
        let roots = wait::try_for(GENEROUS, || {
            let map = ["configmap", "sheath-roots", "--namespace=node-system"];
            let map = self.turn.cluster.kubectl().get(map).ok()?;
            map["data"]["roots.pem"].as_str().map(str::to_owned)
        });
        let Some(roots) = roots else {
            let log = super::tail(&self.log(), 20);
            bail!("the controller publishes no roots: {log}");
        };
        fs::write(self.roots(), roots).context("the roots")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn roots(&self) -> PathBuf {
        self.dir.path().join("roots.pem")
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// The configuration of an agent that has its pods' identities from here, with a token as the kubelet makes one.
    ///
    /// # Errors
    /// When there is no token.
    pub fn configure(&self, node: NodeName, config: &mut Value) -> Result<()> {
        let name = agents_pod(node);
        let token = self.turn.cluster.kubectl().run([
            "create",
            "token",
            "agent",
            "--namespace=node-system",
            "--audience=sheath-controller",
            "--bound-object-kind=Pod",
            &format!("--bound-object-name={name}"),
        ])?;
        let file: PathBuf = self.dir.path().join(format!("{name}.token"));
        fs::write(&file, token).context("the agent's token")?;
        config["identity"] = json!({"controller": {}});
        config["controller"] = json!({
            "address": format!("{}:{PORT}", NODES[0].addresses().v4),
            "roots": self.roots(),
            "spiffeId": format!("spiffe://{TRUST_DOMAIN}/ns/node-system/sa/sheath-controller"),
            "token": file,
        });
        Ok(())
    }

    /// The pod that a node's agent would run in: tokens are bound to it, and say its node.
    fn make_agents_pod(&self, node: NodeName) -> Result<()> {
        self.turn.cluster.kubectl().apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {}, namespace: node-system}}
spec:
  nodeName: {}
  serviceAccountName: agent
  terminationGracePeriodSeconds: 1
  containers: [{{name: main, image: {PAUSE_IMAGE}, imagePullPolicy: Never}}]
",
            agents_pod(node),
            node.as_str()
        ))
    }

    /// What an earlier one has left.
    fn remove_objects(&self) {
        let mut objects = vec!["secret/sheath-ca".to_owned(), "configmap/sheath-roots".to_owned()];
        objects.push("lease/sheath-controller".to_owned());
        objects.extend(NODES.map(|node| format!("pod/{}", agents_pod(node))));
        let options =
            ["delete", "--namespace=node-system", "--ignore-not-found"].map(str::to_owned);
        let _ = self.turn.cluster.kubectl().run(options.into_iter().chain(objects));
    }
}

impl Drop for Controller<'_> {
    fn drop(&mut self) {
        self.turn.tell();
        if std::thread::panicking() {
            eprintln!("--- last lines of the controller\n{}", super::tail(&self.log(), 20));
        }
        self.kill();
        self.remove_objects();
    }
}

fn agents_pod(node: NodeName) -> String {
    format!("agent-{}", node.as_str())
}
