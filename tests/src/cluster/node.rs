//! A node: containerd with runc and CNI plugins, kubelet and kube-proxy.

use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit};

use super::cgroups::Cgroups;
use super::kubeconfig;
use super::machine::Machine;
use super::names::{DNS_SERVICE, NodeName, PODS};
use super::pki::{Pki, Subject};
use super::state::State;

/// Its programs, in the order in which they are started.
pub const PROGRAMS: [&str; 3] = [CONTAINERD, "kubelet", "kube-proxy"];

pub const CONTAINERD: &str = "containerd";

/// The image of the first process of each pod.
pub const PAUSE_IMAGE: &str = "sheath.dev/pause:1";

/// Where containerd listens, on each node.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Writes the node's configuration files.
///
/// # Errors
/// When that fails.
pub fn configure(node: NodeName, cgroups: &Cgroups, state: &State, pki: &Pki<'_>) -> Result<()> {
    let name = node.as_str();
    let user = format!("system:node:{name}");
    let subject = Subject { user: &user, group: Some("system:nodes") };
    kubeconfig::write(state, pki, &format!("{name}-kubelet"), subject)?;
    let proxy = Subject { user: "system:kube-proxy", group: None };
    kubeconfig::write(state, pki, &format!("{name}-kube-proxy"), proxy)?;
    state.write(&format!("{name}/containerd.toml"), CONTAINERD_CONFIG)?;
    state.write(&format!("{name}/etc/upper/cni/net.d/10-pods.conflist"), &cni(node))?;
    state.write(&format!("{name}/resolv.conf"), "nameserver 127.0.0.53\n")?;
    let kubelet = kubelet(node, cgroups, state, pki)?;
    state.write(&format!("{name}/kubelet.yaml"), &kubelet)?;
    state.write(&format!("{name}/kube-proxy.yaml"), &kube_proxy(node, state))?;
    // kubelet wants it to be there.
    cgroups.create(name)
}

/// Starts one of the node's programs.
///
/// # Errors
/// When it cannot be started.
pub fn start(machine: &Machine, program: &str, state: &State) -> Result<()> {
    let name = machine.name();
    let file = |file: &str| state.at(format!("{name}/{file}")).display().to_string();
    match program {
        CONTAINERD => machine.start(program, ["--config", &file("containerd.toml")]),
        "kubelet" => {
            let kubeconfig = state.at(format!("{name}-kubelet.kubeconfig"));
            machine.start(
                program,
                [
                    format!("--config={}", file("kubelet.yaml")),
                    format!("--kubeconfig={}", kubeconfig.display()),
                    format!("--hostname-override={name}"),
                    format!("--node-ip={}", node_ips(name)),
                ],
            )
        }
        _ => machine.start(
            program,
            [
                format!("--config={}", file("kube-proxy.yaml")),
                format!("--hostname-override={name}"),
            ],
        ),
    }
}

fn node_ips(name: &str) -> String {
    let node = super::names::NODES.into_iter().find(|node| node.as_str() == name);
    let addresses = node.map(NodeName::addresses);
    addresses.map(|at| format!("{},{}", at.v4, at.v6)).unwrap_or_default()
}

/// NRI and the sockets are where containerd has them by itself. What lowers an OOM score takes a capability that
/// root in a container often lacks.
const CONTAINERD_CONFIG: &str = r#"version = 3

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "sheath.dev/pause:1"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false

# The same by another name, for those who do not know it.
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.other]
runtime_type = "io.containerd.runc.v2"
"#;

/// The handler of a runtime class, which is runc by another name.
pub const OTHER_HANDLER: &str = "other";

/// Each pod is behind a veth of its own, with a route to it on the node.
fn cni(node: NodeName) -> String {
    let (v4, v6) = node.pods();
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {{
      "type": "ptp",
      "ipam": {{
        "type": "host-local",
        "dataDir": "/run/cni/networks",
        "ranges": [[{{"subnet": "{v4}"}}], [{{"subnet": "{v6}"}}]],
        "routes": [{{"dst": "0.0.0.0/0"}}, {{"dst": "::/0"}}]
      }}
    }}
  ]
}}
"#
    )
}

fn kubelet(node: NodeName, cgroups: &Cgroups, state: &State, pki: &Pki<'_>) -> Result<String> {
    let serving = pki.kubelet_server(node)?;
    let name = node.as_str();
    let own = |file: &str| -> PathBuf { state.at(format!("{name}/{file}")) };
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit of open files")?;
    Ok(format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {authority}}}
authorization: {{mode: Webhook}}
tlsCertFile: {certificate}
tlsPrivateKeyFile: {key}
containerRuntimeEndpoint: unix://{CONTAINERD_SOCKET}
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
clusterDomain: cluster.local
clusterDNS: [{DNS_SERVICE}]
resolvConf: {resolv_conf}
volumePluginDir: {plugins}
staticPodPath: {pods}
# Hybrid hierarchies are v1 to kubelet.
failCgroupV1: false
failSwapOn: false
# To lower it takes a capability that root in a container often lacks; so does raising a limit.
oomScoreAdj: 0
maxOpenFiles: {files}
# The disk is the developer's.
evictionHard: {{memory.available: \"0%\", nodefs.available: \"0%\", nodefs.inodesFree: \"0%\", imagefs.available: \"0%\"}}
imageGCHighThresholdPercent: 100
maxPods: 250
serializeImagePulls: false
",
        authority = state.at("pki/ca.crt").display(),
        certificate = serving.certificate.display(),
        key = serving.key.display(),
        cgroup = cgroups.absolute(name),
        resolv_conf = own("resolv.conf").display(),
        plugins = state.make_dir(&format!("{name}/volume-plugins"))?.display(),
        pods = static_pods(node, state)?.display(),
    ))
}

/// Where the kubelet looks for static pods.
///
/// # Errors
/// When that cannot be made.
pub fn static_pods(node: NodeName, state: &State) -> Result<PathBuf> {
    state.make_dir(&format!("{}/static-pods", node.as_str()))
}

/// Limits of connection tracking are the whole machine's: zero leaves them alone.
fn kube_proxy(node: NodeName, state: &State) -> String {
    let kubeconfig = state.at(format!("{}-kube-proxy.kubeconfig", node.as_str()));
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {{kubeconfig: {kubeconfig}}}
clusterCIDR: {},{}
oomScoreAdj: 0
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
",
        PODS.0,
        PODS.1,
        kubeconfig = kubeconfig.display(),
    )
}
