//! Brings a cluster up.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;

use super::cgroups::Cgroups;
use super::image::Image;
use super::machine::{self, Machine};
use super::names::{CONTROL_PLANE, NODES, NodeName};
use super::node::CONTAINERD_SOCKET;
use super::pki::{Pki, Subject};
use super::state::{Home, State};
use super::{Cluster, Kubectl, control_plane, kubeconfig, names, network, node, remove};
use crate::{binaries, pins, wait};

/// What takes a few seconds on an idle machine must not take longer than this on a busy one.
const LIMIT: Duration = Duration::from_secs(120);

/// As many lines of a log are told.
const TOLD: usize = 15;

pub fn up(name: &str, owner: Option<u32>) -> Result<Cluster> {
    names::check(name)?;
    let home = Home::lock()?;
    let (state, cgroups) = (home.cluster(name), Cgroups::of(name));
    ensure!(
        !state.path().exists() && !cgroups.exist(),
        "there is a cluster `{name}`, or what is left of one: `cargo xtask cluster down --name {name}` removes it"
    );
    // Before the machines copy the mounts of the host.
    pins::ensure_bpffs();
    state.create(owner)?;
    // A panic of what this is made of has said why, and leaves no more than an error does.
    let made = std::panic::catch_unwind(|| make(name, state.clone(), cgroups.clone()));
    let made = made.unwrap_or_else(|_| Err(anyhow!("the cluster could not be set up")));
    made.or_else(|error| {
        // Whoever has interrupted it knows why.
        let told = if wait::is_interrupted() { String::new() } else { ends_of_logs(&state) };
        remove::everything(name, &state, &cgroups)?;
        Err(anyhow!("{error:#}{told}"))
    })
}

fn make(name: &str, state: State, cgroups: Cgroups) -> Result<Cluster> {
    let pki = Pki::create(&state)?;
    let admin = Subject { user: "admin", group: Some("system:masters") };
    kubeconfig::write(&state, &pki, "admin", admin)?;
    cgroups.take_shares()?;
    let control = Machine::create(CONTROL_PLANE, &cgroups, &state)?;
    let mut nodes = Vec::new();
    for node in NODES {
        node::configure(node, &cgroups, &state, &pki)?;
        nodes.push((node, Machine::create(node.as_str(), &cgroups, &state)?));
    }
    network::join(&control, &nodes);
    control_plane::start_api(&control, &state, &pki)?;
    for (_, machine) in &nodes {
        node::start(machine, "containerd", &state)?;
    }
    // While the API server starts.
    let pause = state.at("pause.tar");
    Image::pause().write(&pause)?;
    for (_, machine) in &nodes {
        wait_for_containerd(machine)?;
        import(machine, &pause)?;
    }
    let kubectl = Kubectl::new(&control, state.at(kubeconfig::ADMIN));
    wait_until("the API server", &[&control], || kubectl.run(["get", "--raw=/readyz"]).is_ok())?;
    control_plane::start_controllers(&control, &state, &pki)?;
    kubectl.apply(&node_objects())?;
    for (_, machine) in &nodes {
        node::start(machine, "kubelet", &state)?;
        node::start(machine, "kube-proxy", &state)?;
    }
    let machines = [&control, &nodes[0].1, &nodes[1].1];
    let ready = ["wait", "--for=condition=Ready", "node", "--all", "--timeout=2s"];
    wait_until("the nodes to be Ready", &machines, || kubectl.run(ready).is_ok())?;
    // Without it no pod is admitted.
    let account = ["get", "serviceaccount", "default"];
    wait_until("the default service account", &machines, || kubectl.run(account).is_ok())?;
    let nodes: [Machine; 2] = {
        let mut machines = nodes.into_iter().map(|(_, machine)| machine);
        let mut next = || machines.next().context("two nodes");
        [next()?, next()?]
    };
    Ok(Cluster { name: name.to_owned(), state, cgroups, control, nodes, loaded: Mutex::default() })
}

/// The nodes, known before they come: so each has the range of pods that its CNI configuration says.
fn node_objects() -> String {
    let nodes = NODES.map(|node: NodeName| {
        let (v4, v6) = node.pods();
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": node.as_str() },
            "spec": { "podCIDR": v4, "podCIDRs": [v4, v6] },
        })
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": nodes }).to_string()
}

/// Waits until containerd answers.
pub fn wait_for_containerd(machine: &Machine) -> Result<()> {
    wait_until("containerd", &[machine], || ctr(machine, &["version"]).is_ok())
}

/// Imports an OCI archive on one node, for kubelet.
pub fn import(machine: &Machine, archive: &Path) -> Result<()> {
    let archive = archive.to_str().context("an archive's path in UTF-8")?;
    // Debian's /tmp is seen by a node as well, but /run and /opt are not.
    ctr(machine, &["--namespace=k8s.io", "images", "import", "--no-unpack=false", archive])
        .with_context(|| format!("cannot import {archive} on {}", machine.name()))
}

fn ctr(machine: &Machine, arguments: &[&str]) -> Result<()> {
    let mut command = machine.command("tools", binaries::cluster_program("ctr"))?;
    command.arg(format!("--address={CONTAINERD_SOCKET}")).args(arguments);
    let output = command.output().context("cannot start ctr")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Waits for something, for as long as all programs that were started run.
fn wait_until(what: &str, machines: &[&Machine], condition: impl Fn() -> bool) -> Result<()> {
    let ended = || machines.iter().find_map(|machine| machine.ended());
    let seen = wait::uninterrupted(LIMIT, || match ended() {
        _ if wait::is_interrupted() => Some(Err(anyhow!("interrupted"))),
        Some(log) => {
            let end = machine::tail(&log, TOLD);
            Some(Err(anyhow!("{what}: not seen, as this has ended: {}\n{end}", log.display())))
        }
        None => condition().then_some(Ok(())),
    });
    seen.unwrap_or_else(|| bail!("{what}: not seen within {} s", LIMIT.as_secs()))
}

/// The ends of all logs, for a cluster that is about to be removed.
fn ends_of_logs(state: &State) -> String {
    let machines = [CONTROL_PLANE, NODES[0].as_str(), NODES[1].as_str()];
    let mut told = String::new();
    for (number, name) in machines.into_iter().enumerate() {
        let programs = if number == 0 { &control_plane::PROGRAMS[..] } else { &node::PROGRAMS[..] };
        for program in programs {
            let end = machine::tail(&machine::log(state, name, program), 4);
            if !end.is_empty() {
                told.push_str(&format!("\n--- {name} {program}\n{end}"));
            }
        }
    }
    told
}
