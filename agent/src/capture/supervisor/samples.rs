//! A workload and sockets for tests.

use std::sync::Arc;

use sheath_common::workload::InboundMode;

use super::workload::WorkloadState;
use crate::capture::cgroups::WorkloadCgroup;
use crate::capture::namespace::owned_sockets::OwnedSocket;
use crate::desired::{Inbound, Workload};
use crate::sys::sock_diag::TcpSocket;

/// The id of [`workload`]'s cgroup.
pub const CGROUP: u64 = 7;

/// Workloads of these names, each with the cgroup of its name.
pub fn configs(names: &[&str]) -> Vec<Arc<Workload>> {
    let workload = |name: &&str| {
        let inbound = Inbound {
            mode: InboundMode::Strict,
            ports: vec![80, 81],
            activator: Some("/init.scope".to_owned()),
            ..Inbound::default()
        };
        Arc::new(Workload { inbound, ..Workload::testing(name) })
    };
    names.iter().map(workload).collect()
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
