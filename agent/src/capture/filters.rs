//! Other people's packet filters on a workload's cgroup, such as systemd attaches for `IPAddressDeny=` and
//! `RestrictNetworkInterfaces=`. An application reaches the agent over loopback: where a filter drops such packets, every
//! protected connection would hang.
//!
//! Filters are not read but tried: the kernel runs a program on a packet that is made here, and says whether it would pass.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use sheath_common::net::AGENT_PORT;
use sheath_common::workload::Workload;

use crate::capture::cgroups;
use crate::sys::bpf::{self, AttachType, program_by_id, program_info, test_run};

/// The guards, of this and of other instances.
const OURS: [&str; 2] = ["egress_guard", "ingress_guard"];

/// Where applications and the agent meet for outbound connections.
const MEETING_POINTS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Addresses of the calling thread's namespace at which its servers may be reached.
///
/// # Errors
/// If the interfaces cannot be listed.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let is_served = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    let mut addresses: Vec<IpAddr> = getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
        })
        .filter(is_served)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Packets on loopback that the filters on a cgroup drop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// Names of the programs.
    pub by: Vec<String>,
    /// Addresses that packets cannot be sent to, or received from.
    pub addresses: Vec<IpAddr>,
}

impl Blocked {
    /// The workload, with the families marked in which connections cannot be turned to the agent.
    #[must_use]
    pub fn mark(&self, workload: Workload) -> Workload {
        let [v4, v6] = MEETING_POINTS.map(|point| self.addresses.contains(&point));
        workload.cut_off(v4, v6)
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        let mut advice = Vec::new();
        let named = |start: &str| self.by.iter().any(|name| name.starts_with(start));
        if named("sd_fw_") {
            let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
            advice.push(format!("IPAddressAllow={}", addresses.join(" ")));
        }
        if named("sd_restrictif_") {
            advice.push("`lo` in RestrictNetworkInterfaces=".to_owned());
        }
        if advice.is_empty() {
            return "let the filter pass what stays on the interface lo".to_owned();
        }
        format!("its unit needs {}", advice.join(" and "))
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        write!(
            f,
            "the packet filter {} drops packets between it and the agent on loopback ({})",
            self.by.join(", "),
            addresses.join(", ")
        )
    }
}

/// Tries the filters that run for a cgroup. `own` tells the addresses at which a workload's servers are reached: the agent
/// connects to them from the same address. It is asked only where there are filters.
///
/// # Errors
/// If the kernel does not tell. A filter that goes meanwhile is no error.
pub fn blocked(
    cgroup: &File,
    own: impl FnOnce() -> io::Result<Vec<IpAddr>>,
) -> io::Result<Option<Blocked>> {
    let filters = of_others(cgroup)?;
    if filters.is_empty() {
        return Ok(None);
    }
    let own = own()?;
    let mut blocked = Blocked::default();
    for (program, name) in filters {
        for address in MEETING_POINTS.iter().chain(&own) {
            if passes(program.as_fd(), *address) {
                continue;
            }
            if !blocked.addresses.contains(address) {
                blocked.addresses.push(*address);
            }
            if !blocked.by.contains(&name) {
                blocked.by.push(name.clone());
            }
        }
    }
    Ok((!blocked.addresses.is_empty()).then_some(blocked))
}

/// The filters of others that run for a cgroup, with their names.
fn of_others(cgroup: &File) -> io::Result<Vec<(OwnedFd, String)>> {
    let mut filters = Vec::new();
    for hook in [AttachType::CgroupInetEgress, AttachType::CgroupInetIngress] {
        for id in bpf::effective_programs(cgroup.as_fd(), hook)? {
            let Some(program) = unless_gone(program_by_id(id))? else {
                continue;
            };
            let name = program_info(program.as_fd())?.name;
            if !OURS.contains(&name.as_str()) {
                filters.push((program, name));
            }
        }
    }
    Ok(filters)
}

/// `blocked` for a cgroup, or for the first below it that has such a filter. If the workload `serves` and has processes in
/// the calling thread's namespace, the addresses of that namespace are tried as well.
///
/// # Errors
/// As there.
pub fn blocked_within(directory: &Path, serves: bool) -> io::Result<Option<Blocked>> {
    let namespace =
        |process: u32| Some(fs::metadata(format!("/proc/{process}/ns/net")).ok()?.ino());
    let here = namespace(std::process::id());
    let is_here = |process: &u32| namespace(*process) == here;
    let own = if serves && cgroups::processes(directory)?.iter().any(is_here) {
        own_addresses()?
    } else {
        Vec::new()
    };
    first_blocked(directory, &own)
}

fn first_blocked(directory: &Path, own: &[IpAddr]) -> io::Result<Option<Blocked>> {
    let Some(cgroup) = unless_gone(File::open(directory))? else {
        return Ok(None);
    };
    if let Some(blocked) = blocked(&cgroup, || Ok(own.to_vec()))? {
        return Ok(Some(blocked));
    }
    for child in cgroups::children(directory)? {
        if let Some(blocked) = first_blocked(&directory.join(child), own)? {
            return Ok(Some(blocked));
        }
    }
    Ok(None)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// True if a filter lets a segment from an address to itself pass, on loopback. A filter that cannot be tried counts as one
/// that does.
fn passes(program: BorrowedFd<'_>, address: IpAddr) -> bool {
    // The lowest bit of what a program returns says that the packet goes on (`BPF_RET_SET_CN` is another bit).
    test_run(program, &frame(address)).map_or(true, |returned| returned & 1 != 0)
}

/// A SYN to the agent's port, in the Ethernet frame that the kernel asks for here.
fn frame(address: IpAddr) -> Vec<u8> {
    const TCP: u8 = 6;
    const SOURCE_PORT: u16 = 40_000;
    const TCP_HEADER: u16 = 20;
    const HOPS: u8 = 64;
    let mut frame = vec![0; 12];
    match address {
        IpAddr::V4(address) => {
            frame.extend([0x08, 0x00]);
            // RFC 791, 3.1
            frame.extend([0x45, 0]);
            frame.extend((20 + TCP_HEADER).to_be_bytes());
            frame.extend([0, 0, 0, 0, HOPS, TCP, 0, 0]);
            frame.extend(address.octets());
            frame.extend(address.octets());
        }
        IpAddr::V6(address) => {
            frame.extend([0x86, 0xdd]);
            // RFC 8200, 3
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(TCP_HEADER.to_be_bytes());
            frame.extend([TCP, HOPS]);
            frame.extend(address.octets());
            frame.extend(address.octets());
        }
    }
    // RFC 9293, 3.1: a SYN.
    frame.extend(SOURCE_PORT.to_be_bytes());
    frame.extend(AGENT_PORT.to_be_bytes());
    frame.extend([0; 8]);
    frame.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_long_as_its_headers_say() {
        for (address, length) in [("10.0.2.1", 14 + 20 + 20), ("fd00::1", 14 + 40 + 20)] {
            assert_eq!(frame(address.parse().unwrap()).len(), length, "{address}");
        }
    }

    #[test]
    fn the_advice_names_what_the_unit_lacks() {
        let blocked = |by: &[&str]| Blocked {
            by: by.iter().map(ToString::to_string).collect(),
            addresses: MEETING_POINTS.to_vec(),
        };
        assert_eq!(
            blocked(&["sd_fw_egress"]).advice(),
            "its unit needs IPAddressAllow=127.0.0.1 ::1"
        );
        let both = blocked(&["sd_fw_ingress", "sd_restrictif_i"]).advice();
        assert!(both.contains("IPAddressAllow=") && both.contains("`lo`"), "{both}");
        assert!(!blocked(&["mine"]).advice().contains("unit"));
    }
}
