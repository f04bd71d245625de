//! The rules by destination that the kernel decides by. Policy makes them, capture puts them
//! into the kernel's maps; neither knows the other.

mod prefix_table;
mod summary;

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;
use sheath_common::verdict::{Action, PORT_ANY, Verdict};
use sheath_common::workload::WorkloadId;

use crate::desired::Destination;
use crate::origin::Origin;

pub use prefix_table::{PrefixTable, mapped_length};
pub use summary::sum_up;

/// A rule for the kernel: scope, destination and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRule {
    pub scope: u32,
    pub destination: Destination,
    pub action: Action,
}

/// A destination's port as kernel rules spell it.
#[must_use]
pub fn kernel_port(destination: &Destination) -> u32 {
    destination.port.map_or(PORT_ANY, u32::from)
}

/// What capture asks of policy.
pub trait Steering: fmt::Debug + Send + Sync {
    /// The rules that steer connections in the kernel.
    fn kernel_rules(&self) -> Vec<KernelRule>;

    /// Prefixes of destinations that are reached by TLS, summed up where there are many.
    fn protected_prefixes(&self) -> Vec<IpNet>;

    /// What the kernel decides about a connection of `workload` to `destination`; `None` of a workload that is none.
    fn verdict(&self, workload: WorkloadId, destination: SocketAddr) -> Option<Verdict>;

    /// The rule by which the kernel has refused a connection, if it was a rule. `denial` is the
    /// [code](sheath_common::verdict::Denial) of the reason.
    fn rule_of_denial(
        &self,
        workload: WorkloadId,
        destination: SocketAddr,
        denial: u32,
    ) -> Option<Origin>;

    /// More about why the kernel has refused a connection than the code of the denial says, if more is known.
    fn why_denied(&self, destination: SocketAddr, denial: u32) -> Option<String>;

    /// True if connections that the network opens to this port of the workload belong to the agent.
    fn covers_inbound(&self, workload: WorkloadId, port: u16) -> bool;

    /// The name of a workload, for people.
    fn workload_name(&self, workload: WorkloadId) -> Option<&str>;
}
