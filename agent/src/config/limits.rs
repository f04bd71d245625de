//! Limits on what a configuration may hold. The kernel's maps have a fixed size. What does not fit is refused here, with a
//! message; in the kernel it would be an error number, with half of the configuration in force.
//!
//! README, "Limits", lists these and all others.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use sheath_common::maps::{MAX_ADDRESSES, MAX_PORTS, MAX_PREFIXES};
use sheath_common::selector::MAX_SELECTED;
use sheath_common::workload::InboundMode;

use crate::desired::{Desired, Destination, Place};
use crate::discovery::ADDRESSES_OF_A_NAME;

/// More of something than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverLimit {
    #[error("{0} workloads; {MAX_SELECTED} are the most")]
    Workloads(usize),
    #[error(
        "{0} single addresses in peers, externalPeers and bypass, where each DNS name counts for {ADDRESSES_OF_A_NAME}; \
         {MAX_ADDRESSES} are the most"
    )]
    Addresses(usize),
    #[error("{0} address prefixes in peers, externalPeers and bypass; {MAX_PREFIXES} are the most")]
    Prefixes(usize),
    #[error("{0} ports in inbound.ports of all workloads together; {MAX_PORTS} are the most")]
    Ports(usize),
}

/// Bytes in the path of a Unix socket, without the NUL at its end (unix(7)).
const SOCKET_PATH: usize = 107;

/// The path is too long for a socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the socket {} would have a path of {} bytes; {SOCKET_PATH} are the most",
    .0.display(),
    .0.as_os_str().len()
)]
pub struct SocketPathTooLong(PathBuf);

/// # Errors
/// If the path is too long.
pub fn check_socket(path: &Path) -> Result<(), SocketPathTooLong> {
    let is_too_long = path.as_os_str().len() > SOCKET_PATH;
    if is_too_long { Err(SocketPathTooLong(path.to_owned())) } else { Ok(()) }
}

/// # Errors
/// The first limit that is exceeded.
pub fn check(desired: &Desired) -> Result<(), OverLimit> {
    let is_over = |count: usize, limit: u32| count > limit as usize;
    let workloads = desired.workloads.len();
    if is_over(workloads, MAX_SELECTED) {
        return Err(OverLimit::Workloads(workloads));
    }
    let (addresses, prefixes) = destinations(desired);
    if is_over(addresses, MAX_ADDRESSES) {
        return Err(OverLimit::Addresses(addresses));
    }
    if is_over(prefixes, MAX_PREFIXES) {
        return Err(OverLimit::Prefixes(prefixes));
    }
    let ports = ports(desired);
    if is_over(ports, MAX_PORTS) {
        return Err(OverLimit::Ports(ports));
    }
    Ok(())
}

/// The most rules about destinations that a configuration may lead to: about single addresses, and about prefixes.
fn destinations(desired: &Desired) -> (usize, usize) {
    let mut of_all: HashSet<&Destination> =
        desired.peers.iter().flat_map(|peer| &peer.destinations).collect();
    let mut names = HashSet::new();
    for place in desired.external_peers.iter().flat_map(|peer| &peer.places) {
        match place {
            Place::At(destination) => {
                of_all.insert(destination);
            }
            Place::Named { .. } => {
                names.insert(place);
            }
        }
    }
    let (mut addresses, mut prefixes) = (names.len() * ADDRESSES_OF_A_NAME, 0);
    let mut add = |destinations: HashSet<&Destination>| {
        let single = destinations.iter().filter(|destination| destination.is_address()).count();
        addresses += single;
        prefixes += destinations.len() - single;
    };
    add(of_all);
    for workload in &desired.workloads {
        add(workload.outbound.bypass.iter().map(|bypass| &bypass.destination).collect());
    }
    (addresses, prefixes)
}

fn ports(desired: &Desired) -> usize {
    let inbound = desired.workloads.iter().map(|workload| &workload.inbound);
    inbound
        .filter(|inbound| inbound.mode != InboundMode::Disabled)
        .map(|inbound| inbound.ports.iter().collect::<HashSet<_>>().len())
        .sum()
}

#[cfg(test)]
mod tests;
