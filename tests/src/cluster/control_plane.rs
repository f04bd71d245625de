//! The control plane: etcd, the API server, the controller manager and the scheduler, on a machine of their own.

use std::path::Path;

use anyhow::Result;

use super::kubeconfig;
use super::machine::Machine;
use super::names::{API_PORT, PODS, SERVICES, control_plane};
use super::pki::{self, Pair, Pki, Subject};
use super::state::State;

/// Its programs, in the order in which they are started.
pub const PROGRAMS: [&str; 4] = ["etcd", API_SERVER, "kube-controller-manager", "kube-scheduler"];

pub const API_SERVER: &str = "kube-apiserver";

/// What tells the API server's certificate of its calls to kubelets apart.
const KUBELET_CLIENT: Subject<'_> =
    Subject { user: "kube-apiserver-kubelet-client", group: Some("system:masters") };

const KUBELET_CLIENT_FILE: &str = "apiserver-kubelet-client";

/// Starts etcd and the API server.
///
/// # Errors
/// When they cannot be started.
pub fn start_api(machine: &Machine, state: &State, pki: &Pki<'_>) -> Result<()> {
    let data = state.make_dir("control-plane/etcd")?;
    // Nobody else is on this machine, and a cluster that is gone after a crash of the host is no loss.
    machine.start(
        "etcd",
        [
            "--name=etcd",
            &format!("--data-dir={}", data.display()),
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=etcd=http://127.0.0.1:2380",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
    )?;
    pki.api_server()?;
    pki.client(KUBELET_CLIENT_FILE, KUBELET_CLIENT)?;
    start_api_server(machine, state)
}

/// Starts the API server, for the first time or again.
///
/// # Errors
/// When it cannot be started.
pub fn start_api_server(machine: &Machine, state: &State) -> Result<()> {
    machine.start(API_SERVER, api_server_flags(state))
}

fn api_server_flags(state: &State) -> Vec<String> {
    let serving = Pair::of(state, pki::API_SERVER);
    let kubelets = Pair::of(state, KUBELET_CLIENT_FILE);
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    let own = |flag: &str, name: &str| file(flag, &state.at(name));
    let mut flags = vec![
        own("client-ca-file", "pki/ca.crt"),
        own("kubelet-certificate-authority", "pki/ca.crt"),
        own("service-account-key-file", "pki/tokens.pub"),
        own("service-account-signing-key-file", "pki/tokens.key"),
        own("cert-dir", "control-plane/apiserver"),
        file("tls-cert-file", &serving.certificate),
        file("tls-private-key-file", &serving.key),
        file("kubelet-client-certificate", &kubelets.certificate),
        file("kubelet-client-key", &kubelets.key),
        format!("--advertise-address={}", control_plane().v4),
        format!("--secure-port={API_PORT}"),
        format!("--service-cluster-ip-range={},{}", SERVICES.0, SERVICES.1),
    ];
    flags.extend(
        [
            "--allow-privileged=true",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            // Webhooks' Services have no kube-proxy here.
            "--enable-aggregator-routing=true",
            "--etcd-servers=http://127.0.0.1:2379",
            "--kubelet-preferred-address-types=InternalIP",
            "--profiling=false",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned),
    );
    flags
}

/// Starts what works on the API server's objects.
///
/// # Errors
/// When it cannot be started.
pub fn start_controllers(machine: &Machine, state: &State, pki: &Pki<'_>) -> Result<()> {
    let mut flags = flags_of("kube-controller-manager", state, pki)?;
    let own = |flag: &str, name: &str| format!("--{flag}={}", state.at(name).display());
    flags.extend([
        own("root-ca-file", "pki/ca.crt"),
        own("cluster-signing-cert-file", "pki/ca.crt"),
        own("cluster-signing-key-file", "pki/ca.key"),
        own("service-account-private-key-file", "pki/tokens.key"),
        format!("--cluster-cidr={},{}", PODS.0, PODS.1),
        // Each node's range is known before.
        "--allocate-node-cidrs=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
    ]);
    machine.start("kube-controller-manager", flags)?;
    machine.start("kube-scheduler", flags_of("kube-scheduler", state, pki)?)
}

fn flags_of(program: &str, state: &State, pki: &Pki<'_>) -> Result<Vec<String>> {
    let user = format!("system:{program}");
    let kubeconfig = kubeconfig::write(state, pki, program, Subject { user: &user, group: None })?;
    let kubeconfig = kubeconfig.display();
    Ok(vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        "--profiling=false".to_owned(),
    ])
}
