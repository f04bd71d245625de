//! The peers of outbound connections.

use std::time::Duration;

use rustls_pki_types::DnsName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Destination, Origin, PinSource, Place, StandardTls};
use crate::spiffe::SpiffeId;

/// Agents: destinations that are dialled with mutual TLS, and the identities that are expected there.
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
    /// Address family of its DNS names.
    pub family: Family,
    /// Server name (SNI), if it is not the DNS name of the place.
    pub server_name: Option<DnsName<'static>>,
    pub connect_timeout: Option<Duration>,
    pub tls: StandardTls,
}

#[cfg(test)]
impl ExternalPeer {
    /// For tests: no certificate is good enough for it.
    pub(crate) fn testing(name: &str, places: &[&str]) -> Self {
        let place = |text: &&str| Place::try_from((*text).to_owned()).unwrap();
        Self {
            origin: Origin::BuiltIn,
            name: name.to_owned(),
            places: places.iter().map(place).collect(),
            family: Family::Both,
            server_name: None,
            connect_timeout: None,
            tls: StandardTls {
                certificate: super::CertificateChoice::Svid,
                trust: None,
                pins: Vec::new(),
                profile: crate::peer::Profile::new(&crate::peer::Choice::default()).unwrap(),
            },
        }
    }
}

/// Which addresses of a name count.
#[derive(
    Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord,
)]
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
