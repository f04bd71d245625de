//! Every way to make, prepare and open a socket, crossed with every kind of destination: what an unprivileged process
//! of a workload may try in order not to be captured. The probe plays the cases; the wire tap judges them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A whole matrix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Matrix {
    /// Begins the text that each case sends; the case's number and name follow.
    pub marker: String,
    pub destinations: Vec<SocketAddr>,
    /// An interface that leads to other hosts.
    pub device: String,
    /// Stops for source routes: hosts on the way.
    pub via: Vec<IpAddr>,
    /// The Unix socket of the accomplice, a job of another probe.
    pub accomplice: PathBuf,
}

/// One case.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Case {
    pub kind: Kind,
    pub origin: Origin,
    pub prepared: Prepared,
    pub opening: Opening,
    pub afterwards: Afterwards,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Tcp,
    Mptcp,
    /// IPv6 sockets to IPv4-mapped destinations.
    MappedTcp,
    MappedMptcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    Own,
    /// Made and prepared by a process outside the workload.
    Lent,
    /// Made here, connected by a process outside.
    ConnectedOutside,
}

/// What is done to the socket before it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prepared {
    Plain,
    Device,
    Loopback,
    /// An IPv6 segment routing header, or an IPv4 loose source route.
    SourceRoute,
    DeviceAndSourceRoute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    Connect,
    /// `sendto(MSG_FASTOPEN)` without a cookie: data in the SYN.
    FastOpenSend,
    /// `TCP_FASTOPEN_CONNECT` without a cookie.
    FastOpenConnect,
}

/// What is done to the socket once `connect()` has returned, before it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Afterwards {
    Nothing,
    Device,
    SourceRoute,
}

impl Matrix {
    /// Every case that makes sense with one of the destinations. What happens afterwards is crossed with plain
    /// sockets only: the others have left already.
    pub fn cases(&self) -> Vec<(Case, SocketAddr)> {
        use Afterwards as A;
        use Opening as O;
        use Prepared as P;
        let mut cases = Vec::new();
        for &to in &self.destinations {
            for kind in [Kind::Tcp, Kind::Mptcp, Kind::MappedTcp, Kind::MappedMptcp] {
                if kind.is_mapped() && to.is_ipv6() {
                    continue;
                }
                for origin in [Origin::Own, Origin::Lent, Origin::ConnectedOutside] {
                    for prepared in
                        [P::Plain, P::Device, P::Loopback, P::SourceRoute, P::DeviceAndSourceRoute]
                    {
                        for opening in [O::Connect, O::FastOpenSend, O::FastOpenConnect] {
                            for afterwards in [A::Nothing, A::Device, A::SourceRoute] {
                                let is_crossed = afterwards == A::Nothing || prepared == P::Plain;
                                let is_possible =
                                    origin != Origin::ConnectedOutside || opening == O::Connect;
                                if is_crossed && is_possible {
                                    cases.push((
                                        Case { kind, origin, prepared, opening, afterwards },
                                        to,
                                    ));
                                }
                            }
                        }
                    }
                }
            }
        }
        cases
    }

    /// What case `number` sends.
    pub fn text(&self, number: usize) -> String {
        format!("{}-{number:05}-", self.marker)
    }

    /// Names the cases whose text is in a frame.
    pub fn seen_in(&self, frames: &[std::sync::Arc<[u8]>]) -> Vec<String> {
        let cases = self.cases();
        let finder = memchr::memmem::Finder::new(self.marker.as_bytes());
        let mut numbers = std::collections::BTreeSet::new();
        for frame in frames {
            for at in finder.find_iter(frame) {
                let digits = frame.get(at + self.marker.len() + 1..at + self.marker.len() + 6);
                let number =
                    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                numbers.insert(number.unwrap_or(usize::MAX));
            }
        }
        numbers.into_iter().map(|number| format!("{:?}", cases.get(number))).collect()
    }
}

impl Kind {
    pub fn is_mapped(self) -> bool {
        matches!(self, Self::MappedTcp | Self::MappedMptcp)
    }

    pub fn is_mptcp(self) -> bool {
        matches!(self, Self::Mptcp | Self::MappedMptcp)
    }
}

/// What the accomplice is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Favour {
    /// A socket, made and prepared.
    Make { case: Case, to: SocketAddr, device: String, via: Vec<IpAddr> },
    /// The socket that is passed along, connected.
    Connect { to: SocketAddr },
}
