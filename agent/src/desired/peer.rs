//! Who is meant to be at the other end of connections that workloads open.

use std::time::Duration;

use rustls_pki_types::DnsName;
use serde::Deserialize;

use super::{Destination, Origin, PinSource, Place, StandardTls};
use crate::spiffe::SpiffeId;

/// Destinations that are reached by mutual TLS, and who must answer there.
#[derive(Clone, Debug)]
pub struct Peer {
    pub origin: Origin,
    pub destinations: Vec<Destination>,
    pub spiffe_ids: Vec<SpiffeId>,
    pub pins: Vec<PinSource>,
}

/// A service without an agent.
#[derive(Clone, Debug)]
pub struct ExternalPeer {
    pub origin: Origin,
    pub name: String,
    pub places: Vec<Place>,
    /// Which addresses of its names are meant.
    pub family: Family,
    /// The name to ask for (SNI), if not that of the place.
    pub server_name: Option<DnsName<'static>>,
    pub connect_timeout: Option<Duration>,
    pub tls: StandardTls,
}

/// Addresses of a name that are meant.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Family {
    Ipv4Only,
    Ipv6Only,
    #[default]
    Both,
}

impl Family {
    /// True if an address is of this family.
    #[must_use]
    pub fn has(self, address: &std::net::IpAddr) -> bool {
        match self {
            Self::Ipv4Only => address.is_ipv4(),
            Self::Ipv6Only => address.is_ipv6(),
            Self::Both => true,
        }
    }
}
