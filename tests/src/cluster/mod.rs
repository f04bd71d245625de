//! A real Kubernetes cluster on this machine: etcd, the control plane, and two nodes with containerd, kubelet and kube-proxy,
//! each machine in network and mount namespaces of its own. `cargo xtask cluster` builds the programs.
//!
//! All that a cluster consists of is in namespaces that vanish with its processes, in cgroups that name it, and in one
//! directory. So it is found again, and removed, by its name alone, whatever has become of those who made it.

pub mod agents;
mod away;
mod cgroups;
mod control_plane;
pub mod controller;
pub mod crowd;
pub mod dns;
pub mod followed;
pub mod helm;
pub mod image;
mod kubeconfig;
mod kubectl;
mod machine;
mod mounts;
mod names;
mod network;
mod node;
mod pki;
mod remove;
pub mod scene;
pub mod servers;
pub mod shared;
mod state;
pub mod static_pod;
pub mod status;
pub mod steady;
pub mod turn;
mod up;
pub mod wrk;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use self::cgroups::Cgroups;
use self::image::Image;
use self::machine::Machine;
use self::state::State;
use crate::{binaries, pins};

pub use self::away::Away;
pub use self::kubectl::Kubectl;
pub use self::machine::tail;
pub use self::names::{NODES, NodeName, WIRE};
pub use self::node::{OTHER_HANDLER, PAUSE_IMAGE};
pub use self::remove::{remove, remove_orphans};

/// A cluster that is up. Dropping this leaves it so; see [`remove`].
pub struct Cluster {
    name: String,
    state: State,
    cgroups: Cgroups,
    control: Machine,
    nodes: [Machine; 2],
    /// The names of images that this value has imported.
    loaded: Mutex<BTreeSet<String>>,
}

impl Cluster {
    /// Brings a cluster up: a moment later, pods are scheduled. With an owner, it is taken for left over once that process has
    /// ended.
    ///
    /// # Errors
    /// When there is one of that name, or something does not start, with the end of its log. Nothing is left then.
    pub fn up(name: &str, owner: Option<u32>) -> Result<Self> {
        up::up(name, owner)
    }

    /// A cluster that somebody has brought up before.
    ///
    /// # Errors
    /// When it is not there.
    pub fn find(name: &str) -> Result<Self> {
        names::check(name)?;
        let (state, cgroups) = (state::of(name), Cgroups::of(name));
        ensure!(
            state.path().exists() && cgroups.exist(),
            "there is no cluster `{name}`: `cargo xtask cluster up --name {name}` brings one up"
        );
        let machine = |machine: &'static str| Machine::find(machine, &cgroups, &state);
        let control = machine(names::CONTROL_PLANE)?;
        let nodes = [machine(NODES[0].as_str())?, machine(NODES[1].as_str())?];
        let loaded = Mutex::default();
        Ok(Self { name: name.to_owned(), control, nodes, state, cgroups, loaded })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory with certificates, configurations and logs.
    pub fn dir(&self) -> &Path {
        self.state.path()
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(&self.control, self.state.at(kubeconfig::ADMIN))
    }

    /// A program with the administrator's kubeconfig on the control plane's machine, for example `helm`.
    ///
    /// # Errors
    /// When its cgroup cannot be made.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = self.control.command("tools", binaries::cluster_program(program))?;
        command.env("KUBECONFIG", self.state.at(kubeconfig::ADMIN));
        Ok(command)
    }

    pub fn control_plane(&self) -> &Machine {
        &self.control
    }

    /// One of the nodes, for its namespaces.
    pub fn node(&self, name: NodeName) -> &Machine {
        let [a, b] = &self.nodes;
        if a.name() == name.as_str() { a } else { b }
    }

    /// The path of a node's cgroup from the root of the hierarchy. Below it are `kubelet`, `containerd`, `kube-proxy` and `kubepods`.
    pub fn cgroup(&self, name: NodeName) -> String {
        self.cgroups.absolute(name.as_str())
    }

    /// Imports an OCI archive on every node.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub fn load(&self, archive: &Path) -> Result<()> {
        std::thread::scope(|scope| {
            let import = |node| scope.spawn(move || up::import(node, archive));
            let imports = self.nodes.each_ref().map(import);
            imports.into_iter().try_for_each(|done| {
                done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    /// Makes an image and imports it on every node, unless this value has done so before.
    ///
    /// # Errors
    /// When it cannot be made, or containerd refuses it.
    pub fn load_once(&self, name: &str, make: impl FnOnce() -> Result<Image>) -> Result<()> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if !loaded.contains(name) {
            let archive = self.state.at("image.tar");
            make()?.write(&archive)?;
            self.load(&archive)?;
            loaded.insert(name.to_owned());
        }
        Ok(())
    }

    /// Kills one of a node's programs (`kubelet`, `containerd`, `kube-proxy`) and what it has started as its own: containerd's shims are.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&self, name: NodeName, program: &str) -> Result<()> {
        self.node(name).kill(program)
    }

    /// Kills everything in a pod with SIGKILL, as if it had crashed.
    ///
    /// # Errors
    /// When there is no such pod, or its processes do not end.
    pub fn kill_pod(&self, node: NodeName, namespace: &str, pod: &str) -> Result<()> {
        for cgroup in pod_cgroups(node, &self.uid(namespace, pod)?) {
            self.cgroups.kill(&cgroup)?;
        }
        Ok(())
    }

    /// The uid of a pod.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn uid(&self, namespace: &str, pod: &str) -> Result<String> {
        let space = format!("--namespace={namespace}");
        let object = self.kubectl().get(["pod", pod, &space])?;
        Ok(object["metadata"]["uid"].as_str().context("a uid")?.to_owned())
    }

    /// The processes of a pod, in the order of their numbers. Who has its uid needs no API server for that.
    pub fn pod_processes(&self, node: NodeName, uid: &str) -> Vec<u32> {
        let cgroups = pod_cgroups(node, uid);
        let mut all: Vec<_> =
            cgroups.iter().flat_map(|cgroup| self.cgroups.all_processes(cgroup)).collect();
        all.sort_unstable();
        all
    }

    /// Runs a program in the network of a pod, by one of its processes, and in a cgroup below the node's, which need not be the pod's. One
    /// that is made for it is removed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run_beside(
        &self,
        node: NodeName,
        process: u32,
        cgroup: &str,
        program: &[&str],
    ) -> Result<Output> {
        let path = self.cgroups.path().join(node.as_str()).join(cgroup);
        let is_new = !path.exists();
        let mut command = self.node(node).command(cgroup, "nsenter")?;
        command.arg(format!("--net=/proc/{process}/ns/net")).args(program);
        let output = command.stdin(Stdio::null()).output().context("cannot start nsenter");
        // Where pods are, the kubelet may have been quicker: it removes what is no pod's.
        if is_new
            && let Err(error) = std::fs::remove_dir(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).context("the cgroup of the program");
        }
        output
    }

    /// The instances of agents on its nodes that have left pins.
    pub fn pinned(&self) -> Vec<String> {
        let instances = NODES.map(|node| names::instance(&self.name, node));
        let is_there = |instance: &String| pins::directory(instance).exists();
        instances.into_iter().filter(is_there).collect()
    }

    /// Kills one of a node's programs, and nothing that it has started: a service manager would leave that as well.
    ///
    /// # Errors
    /// When it does not end.
    pub fn without(&self, name: NodeName, program: &'static str) -> Result<Away<'_>> {
        Away::of_node(self, name, program)
    }

    /// Kills the API server.
    ///
    /// # Errors
    /// When it does not end.
    pub fn without_api_server(&self) -> Result<Away<'_>> {
        Away::api_server(self)
    }
}

/// Where the cgroup of a pod may be: by its class (pkg/kubelet/cm/qos_container_manager_linux.go).
fn pod_cgroups(node: NodeName, uid: &str) -> [String; 3] {
    ["", "burstable/", "besteffort/"]
        .map(|class| format!("{}/kubepods/{class}pod{uid}", node.as_str()))
}
