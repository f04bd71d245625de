//! The directory as a value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use rpds::HashTrieMapSync;
use sheath_common::verdict::{Action, Known};

use super::{Entry, Identity, Standing};
use crate::peer::UidHash;
use crate::services::ServicePorts;

/// Which state of the controller's directory this is. Sequences count the changes of one leader; another leader begins another
/// epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub epoch: u64,
    pub sequence: u64,
}

/// All entries. A clone is cheap.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// `None` as long as nothing is known.
    pub(super) position: Option<Position>,
    /// By address in canonical form.
    pub(super) entries: HashTrieMapSync<IpAddr, Entry>,
    /// Addresses that only the directory can tell of.
    pub(super) ranges: Arc<[IpNet]>,
    /// Ports of Services, by address. Where a pod has the address, they do not count.
    pub(super) services: HashTrieMapSync<IpAddr, ServicePorts>,
}

/// What is at an address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'d> {
    Protected {
        identity: &'d Arc<Identity>,
        uid: UidHash,
    },
    /// It is to be protected, by the agent of this node.
    Pending {
        node: &'d Arc<str>,
    },
    Plain,
    /// Somebody of the cluster may be there, and no pod is known: at the address of a Service, for instance.
    Unknown,
    /// A Service that nobody answers for now.
    Closed,
    /// A Service that is bypassed by its name.
    Bypassed,
    /// No address of the cluster's.
    Outside,
}

impl Directory {
    /// Nothing is known yet: the controller has to tell of every address.
    #[must_use]
    pub fn unknown() -> Self {
        let everywhere = [
            IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
            IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
        ];
        Self { ranges: everywhere.into(), ..Self::default() }
    }

    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The entry of an address.
    #[must_use]
    pub fn entry(&self, ip: IpAddr) -> Option<&Entry> {
        self.entries.get(&ip.to_canonical())
    }

    /// What is at a destination.
    #[must_use]
    pub fn find(&self, to: SocketAddr) -> Found<'_> {
        let ip = to.ip().to_canonical();
        match self.entries.get(&ip) {
            Some(Entry { uid, standing: Standing::Protected { identity, ports } }) => {
                match ports.have(to.port()) {
                    true => Found::Protected { identity, uid: *uid },
                    false => Found::Plain,
                }
            }
            Some(Entry { standing: Standing::Pending { node }, .. }) => Found::Pending { node },
            Some(Entry { standing: Standing::Plain, .. }) => Found::Plain,
            None => match self.service_at(ip, to.port()).map(|known| known.action()) {
                Some(Action::Bypass) => Found::Bypassed,
                Some(Action::Refuse) => Found::Closed,
                Some(Action::Protect | Action::Plain) => Found::Unknown,
                None if self.ranges.iter().any(|range| range.contains(&ip)) => Found::Unknown,
                None => Found::Outside,
            },
        }
    }

    /// True if the directory says nothing of the address, or that the pod there is this one.
    #[must_use]
    pub fn may_still_be(&self, ip: IpAddr, uid: UidHash) -> bool {
        self.entry(ip).is_none_or(|entry| entry.uid == uid)
    }

    /// Ports at which Services are, where no pod has the address.
    #[must_use]
    pub fn service_ports(&self, ip: IpAddr) -> &[(u16, Known)] {
        match self.services.get(&ip) {
            Some(ports) if self.entry(ip).is_none() => ports,
            _ => &[],
        }
    }

    /// What is known of a port of Services: of itself, or of all that are not there.
    fn service_at(&self, ip: IpAddr, port: u16) -> Option<Known> {
        let ports = self.service_ports(ip);
        let of = |wanted: u16| {
            let at = ports.binary_search_by_key(&wanted, |(port, _)| *port).ok()?;
            ports.get(at).map(|(_, known)| *known)
        };
        of(port).or_else(|| of(0))
    }

    /// Addresses at which Services are, or a pod.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let of_services = self.services.keys().filter(|ip| !self.entries.contains_key(*ip));
        self.entries.keys().chain(of_services).copied()
    }

    #[must_use]
    pub fn ranges(&self) -> &[IpNet] {
        &self.ranges
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.size()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn entries(&self) -> impl Iterator<Item = (&IpAddr, &Entry)> {
        self.entries.iter()
    }
}
