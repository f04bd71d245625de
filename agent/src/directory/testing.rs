//! For tests: entries.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;

use sheath_common::verdict::Known;

use super::{Entry, Identity, Ports, Standing};
use crate::peer::UidHash;
use crate::services::ServicePorts;

pub fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 0, last).into()
}

pub fn identity(account: &str) -> Arc<Identity> {
    Arc::new(Identity::new(format!("spiffe://example.org/ns/shop/sa/{account}").parse().unwrap()))
}

pub fn plain(uid: u64) -> Entry {
    Entry { uid: UidHash(uid), standing: Standing::Plain }
}

pub fn pending(uid: u64) -> Entry {
    Entry { uid: UidHash(uid), standing: Standing::Pending { node: "node-b".into() } }
}

pub fn protected(uid: u64, account: &str) -> Entry {
    on_ports(uid, account, Ports::Every)
}

pub fn on_ports(uid: u64, account: &str, ports: Ports) -> Entry {
    let standing = Standing::Protected { identity: identity(account), ports };
    Entry { uid: UidHash(uid), standing }
}

pub fn any_entry() -> impl Strategy<Value = Entry> {
    let ports = prop_oneof![
        Just(Ports::Every),
        prop::collection::btree_set(1..5_u16, 0..3)
            .prop_map(|ports| Ports::These(ports.into_iter().collect())),
    ];
    prop_oneof![
        (0..3_u64).prop_map(plain),
        (0..3_u64).prop_map(pending),
        (0..3_u64, 0..2_u8, ports).prop_map(|(uid, account, ports)| on_ports(
            uid,
            ["web", "db"][usize::from(account)],
            ports
        )),
    ]
}

/// Ports of Services at one address.
pub fn any_service_ports() -> impl Strategy<Value = ServicePorts> {
    let known = prop::sample::select(vec![Known::PROTECT, Known::REFUSE, Known::BYPASS]);
    let ports = prop::collection::btree_map(0..5_u16, known, 0..3);
    ports.prop_map(|ports| ports.into_iter().collect())
}
