//! Addresses of names.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rustls_pki_types::DnsName;

use super::Origin;

/// The addresses that a name resolves to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub origin: Origin,
    pub name: DnsName<'static>,
    pub addresses: BTreeSet<IpAddr>,
}
