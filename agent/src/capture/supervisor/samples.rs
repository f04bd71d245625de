//! A workload and sockets for tests.

use super::workload::WorkloadState;
use crate::capture::cgroups::WorkloadCgroup;
use crate::capture::namespace::owned_sockets::OwnedSocket;
use crate::config::{Config, WorkloadConfig};
use crate::sys::sock_diag::TcpSocket;

/// The id of [`workload`]'s cgroup.
pub const CGROUP: u64 = 7;

/// Configurations of workloads of these names, each with the cgroup of its name.
pub fn configs(names: &[&str]) -> Vec<WorkloadConfig> {
    let mut text = r#"
trustDomain: example.org
node: n
identity: { ca: { dir: /ca } }
workloads:
"#
    .to_owned();
    for name in names {
        text += &format!(
            r#"
  - name: {name}
    select: {{ cgroup: "{name}" }}
    spiffeId: spiffe://example.org/{name}
    inbound: {{ mode: strict, ports: [80, 81], activator: /init.scope, allow: ["spiffe://example.org/a"] }}
"#
        );
    }
    Config::parse(&text, std::path::Path::new("sheath.yaml")).unwrap().workloads
}

/// A workload with a cgroup `/<name>`, that has declared the ports 80 and 81.
pub fn named(name: &str) -> WorkloadState {
    let mut workload = WorkloadState::new(configs(&[name]).remove(0));
    workload.enrol(&WorkloadCgroup { id: CGROUP, path: format!("/{name}").into() }, false);
    workload
}

/// The workload `web`.
pub fn workload() -> WorkloadState {
    named("web")
}

/// A socket of a cgroup that listens here.
pub fn listener(cgroup: &str, at: &str) -> OwnedSocket {
    let socket = TcpSocket::listening(at.parse().unwrap());
    OwnedSocket { socket, cgroup: Some(cgroup.into()) }
}
