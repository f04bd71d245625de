//! Connections of a workload that are older than its protection.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;

use sheath_common::verdict::Verdict;
use sheath_common::workload::WorkloadId;

use super::state::Namespace;
use crate::capture::proc::socket_inodes;
use crate::steering::Steering;
use crate::sys::sock_diag::{SockDiag, TcpSocket};

/// Connections of these processes, in this namespace, that policy wants protected and that are not.
///
/// Those to the agent are on loopback and those from it come from the workload's own address: neither leaves
/// the namespace, and neither is listed. A connection that waits to be accepted belongs to no process yet, but
/// to the process that listens on its port.
///
/// # Errors
/// If the sockets cannot be listed.
pub fn unprotected(
    namespace: &Namespace,
    processes: &BTreeSet<u32>,
    workload: WorkloadId,
    policy: &dyn Steering,
) -> io::Result<Vec<TcpSocket>> {
    const NOT_ACCEPTED: u32 = 0;
    let inodes = socket_inodes(processes);
    if inodes.is_empty() {
        return Ok(Vec::new());
    }
    let sockets = namespace.netns.run(|| SockDiag::open()?.tcp_sockets())?;
    let listening: HashSet<u16> = sockets
        .iter()
        .filter(|socket| socket.is_listening() && inodes.contains(&socket.inode))
        .map(|socket| socket.local.port())
        .collect();
    let is_inbound = |socket: &TcpSocket| listening.contains(&socket.local.port());
    let is_theirs = |socket: &TcpSocket| {
        inodes.contains(&socket.inode) || (socket.inode == NOT_ACCEPTED && is_inbound(socket))
    };
    let concerns_policy = |socket: &TcpSocket| {
        if is_inbound(socket) {
            policy.covers_inbound(workload, socket.local.port())
        } else {
            !matches!(policy.verdict(workload, socket.remote), None | Some(Verdict::Bypass))
        }
    };
    Ok(sockets
        .iter()
        .filter(|socket| !socket.is_listening() && is_theirs(socket))
        .filter(|socket| leaves_the_namespace(socket) && concerns_policy(socket))
        .cloned()
        .collect())
}

/// Aborts connections. One that is gone meanwhile is no error.
///
/// # Errors
/// If one cannot be aborted; those after it are not.
pub fn reset(namespace: &Namespace, sockets: &[TcpSocket]) -> io::Result<()> {
    namespace.netns.run(|| {
        let diag = SockDiag::open()?;
        for socket in sockets {
            match diag.destroy(socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    })
}

/// Aborts the connections with these socket cookies, as far as they are in this namespace.
///
/// # Errors
/// If the sockets cannot be listed, or one cannot be aborted.
pub fn abort(namespace: &Namespace, cookies: &HashSet<u64>) -> io::Result<()> {
    let mut sockets = namespace.netns.run(|| SockDiag::open()?.tcp_sockets())?;
    sockets.retain(|socket| !socket.is_listening() && cookies.contains(&socket.cookie()));
    if sockets.is_empty() { Ok(()) } else { reset(namespace, &sockets) }
}

fn leaves_the_namespace(socket: &TcpSocket) -> bool {
    let remote: IpAddr = socket.remote.ip();
    !remote.is_loopback() && !remote.is_unspecified() && remote != socket.local.ip()
}
