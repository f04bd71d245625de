//! The cluster that is simulated: its namespaces, nodes and pods.

use std::net::IpAddr;

use sheath::kubernetes::{Lifetime, Pod, Wish};
use sheath_common::pod_uid::PodUid;

pub const NAMESPACES: u32 = 500;
pub const TRUST_DOMAIN: &str = "cluster.example.org";
/// Service accounts of a namespace.
const ACCOUNTS: u32 = 4;

/// How large it is.
#[derive(Clone, Copy)]
pub struct Size {
    pub pods: u32,
    pub agents: u32,
}

impl Size {
    pub fn node(self, number: u32) -> String {
        format!("node-{:05}.internal", number % self.agents)
    }

    /// One of the pods. Those of later generations come in the place of earlier ones.
    pub fn pod(self, number: u32, generation: u32) -> Pod {
        let mut uid = [0x5a; 16];
        uid[..4].copy_from_slice(&number.to_be_bytes());
        uid[4..8].copy_from_slice(&generation.to_be_bytes());
        let address = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
        let namespace = number % NAMESPACES;
        Pod {
            uid: PodUid::from_bytes(uid),
            namespace: format!("team-{namespace}").into(),
            name: format!("service-{number}-{generation}").into(),
            service_account: format!("account-{}", number / NAMESPACES % ACCOUNTS).into(),
            node: self.node(number).into(),
            addresses: [address].into(),
            host_network: false,
            is_mirror: false,
            runtime_class: None,
            wish: Wish::Unsaid,
            lifetime: Lifetime::Living,
            probe_ports: Default::default(),
        }
    }
}

/// The pod of a node's agent.
pub fn agent(number: u32) -> PodUid {
    PodUid::from_bytes(u128::from(number).to_be_bytes())
}
