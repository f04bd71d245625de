//! Who owns the addresses and ports of a namespace.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sheath_common::flow::{LEAVE, STEER};
use sheath_common::net::Address;
use sheath_common::workload::WorkloadId;

/// Who gets the connections to an address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortOwner {
    /// The agent takes them for this workload.
    Workload(WorkloadId),
    /// The agent takes them, and resets them.
    Nobody,
    /// They are somebody else's, and left alone.
    Others,
}

/// The addresses and ports of one namespace. An unspecified address stands for all of its family that have no entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboundPorts {
    places: HashMap<(IpAddr, u16), PortOwner>,
    /// The workload that has everything without an entry.
    rest: Option<WorkloadId>,
    /// Cgroups whose listening sockets may stand for a workload's, by id.
    activators: HashMap<WorkloadId, u64>,
}

/// Another workload has what a workload claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Taken {
    #[error("another workload has every port of this network namespace")]
    EveryPort,
    #[error("another workload has port {0} of this network namespace")]
    Port(u16),
    #[error("another workload has {0} of this network namespace")]
    Address(SocketAddr),
}

/// All addresses of a family.
const EVERY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

impl InboundPorts {
    /// Gives a workload every port.
    ///
    /// # Errors
    /// If another one has them.
    pub fn claim_rest(&mut self, workload: WorkloadId) -> Result<(), Taken> {
        match self.rest {
            Some(other) if other != workload => Err(Taken::EveryPort),
            _ => {
                self.rest = Some(workload);
                Ok(())
            }
        }
    }

    /// Gives a port at these addresses to a workload; at all of them, if they are not known.
    ///
    /// # Errors
    /// If another workload has it at one of the addresses; this one has it at the others.
    pub fn claim(
        &mut self,
        workload: WorkloadId,
        port: u16,
        addresses: Option<&BTreeSet<IpAddr>>,
    ) -> Result<(), Taken> {
        let addresses: Vec<IpAddr> = match addresses {
            Some(addresses) => addresses.iter().copied().collect(),
            None => EVERY.to_vec(),
        };
        let mut taken = None;
        for address in addresses {
            let owner = self.places.entry((address, port)).or_insert(PortOwner::Workload(workload));
            if *owner != PortOwner::Workload(workload) {
                taken = Some(address);
            }
        }
        match taken {
            None => Ok(()),
            Some(address) if address.is_unspecified() => Err(Taken::Port(port)),
            Some(address) => Err(Taken::Address(SocketAddr::new(address, port))),
        }
    }

    /// Gives a port at these addresses, or at all of them, to an owner, as far as nobody has it.
    pub fn offer(&mut self, whose: PortOwner, port: u16, addresses: Option<&BTreeSet<IpAddr>>) {
        let mut give = |address: IpAddr| {
            self.places.entry((address, port)).or_insert(whose);
        };
        match addresses {
            Some(addresses) => addresses.iter().copied().for_each(&mut give),
            None => EVERY.into_iter().for_each(&mut give),
        }
    }

    /// Lets the listening sockets of another cgroup stand for a workload's.
    pub fn activate(&mut self, workload: WorkloadId, cgroup: u64) {
        self.activators.insert(workload, cgroup);
    }

    #[must_use]
    pub fn activator(&self, workload: WorkloadId) -> Option<u64> {
        self.activators.get(&workload).copied()
    }

    /// Ports that have an entry for a workload.
    #[must_use]
    pub fn declared(&self) -> HashSet<u16> {
        let theirs =
            self.places.iter().filter(|(_, whose)| matches!(whose, PortOwner::Workload(_)));
        theirs.map(|((_, port), _)| *port).collect()
    }

    /// The workload that has everything without an entry.
    #[must_use]
    pub fn rest(&self) -> Option<WorkloadId> {
        self.rest
    }

    /// True if this address and port have an entry, be it one for all addresses of the family.
    #[must_use]
    pub fn has(&self, address: IpAddr, port: u16) -> bool {
        self.entry(address, port).is_some()
    }

    /// The workload for which the agent takes connections to an address and port.
    #[must_use]
    pub fn owner(&self, at: SocketAddr) -> Option<WorkloadId> {
        match self.entry(at.ip(), at.port()) {
            Some(PortOwner::Workload(workload)) => Some(workload),
            Some(PortOwner::Nobody | PortOwner::Others) => None,
            None => self.rest,
        }
    }

    /// The entry that decides, as in the kernel: the most specific one.
    fn entry(&self, address: IpAddr, port: u16) -> Option<PortOwner> {
        let every = if address.is_ipv4() { EVERY[0] } else { EVERY[1] };
        let said = |address: IpAddr| self.places.get(&(address, port)).copied();
        said(address).or_else(|| said(every))
    }

    /// Address, port and value of each entry of the map `STEERED`.
    #[must_use]
    pub fn kernel_view(&self) -> HashMap<(Address, u32), u32> {
        let value = |whose: &PortOwner| if *whose == PortOwner::Others { LEAVE } else { STEER };
        let places = self.places.iter();
        let mut view: HashMap<_, _> = places
            .map(|((address, port), whose)| {
                ((Address::from(*address), u32::from(*port)), value(whose))
            })
            .collect();
        if self.rest.is_some() {
            view.insert((Address::UNSPECIFIED_V6, 0), STEER);
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    fn owner(ports: &InboundPorts, at: &str) -> Option<WorkloadId> {
        ports.owner(at.parse().unwrap())
    }

    #[test]
    fn a_port_has_one_owner() {
        let mut ports = InboundPorts::default();
        ports.claim(1, 80, None).unwrap();
        ports.claim(1, 80, None).unwrap();
        assert!(ports.claim(2, 80, None).is_err());
        assert_eq!(owner(&ports, "10.0.0.1:81"), None);
        ports.claim_rest(2).unwrap();
        assert!(ports.claim_rest(3).is_err());
        assert_eq!(owner(&ports, "10.0.0.1:80"), Some(1));
        assert_eq!(owner(&ports, "[fd00::1]:80"), Some(1));
        assert_eq!(owner(&ports, "10.0.0.1:81"), Some(2));
    }

    #[test]
    fn the_same_port_at_another_address_is_another() {
        let mut ports = InboundPorts::default();
        ports.claim(1, 80, Some(&set(&["10.0.0.1", "fd00::1"]))).unwrap();
        ports.claim(2, 80, Some(&set(&["10.0.0.9"]))).unwrap();
        assert!(ports.claim(3, 80, Some(&set(&["10.0.0.9"]))).is_err());
        ports.offer(PortOwner::Others, 80, Some(&set(&["10.0.0.7"])));
        ports.offer(PortOwner::Workload(1), 80, None);
        for (at, expected) in [
            ("10.0.0.1:80", Some(1)),
            ("10.0.0.9:80", Some(2)),
            ("10.0.0.7:80", None),
            ("10.0.0.8:80", Some(1)),
            ("[fd00::1]:80", Some(1)),
            ("10.0.0.1:81", None),
        ] {
            assert_eq!(owner(&ports, at), expected, "{at}");
        }
    }

    #[test]
    fn one_family_is_not_the_other() {
        let mut ports = InboundPorts::default();
        ports.claim(1, 80, Some(&set(&["0.0.0.0"]))).unwrap();
        assert_eq!(owner(&ports, "10.0.0.1:80"), Some(1));
        assert_eq!(owner(&ports, "[fd00::1]:80"), None);
    }

    #[test]
    fn what_is_closed_is_taken_for_nobody() {
        let mut ports = InboundPorts::default();
        ports.offer(PortOwner::Nobody, 80, None);
        assert!(ports.has("10.0.0.1".parse().unwrap(), 80));
        assert_eq!(owner(&ports, "10.0.0.1:80"), None);
        assert!(ports.kernel_view().values().all(|value| *value == STEER));
    }
}
