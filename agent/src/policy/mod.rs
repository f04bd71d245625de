//! The policy stage: what is meant to happen to a flow, and who must be at its other end.
//!
//! Nothing here knows a peer's identity. What policy expects of it goes forward as an [`Authorizer`], which the
//! tls stage applies once the handshake has proved who the peer is.

mod prefix_table;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use sheath_common::net::Endpoint;
use sheath_common::verdict::{
    Action, Candidates, Destination as Rule, PORT_ANY, SCOPE_ALL, Verdict, decide,
};
use sheath_common::workload::{InboundMode, WorkloadId};

use crate::config::{Config, Destination, WorkloadConfig};
use crate::spiffe::{Authorizer, SpiffeId};

use prefix_table::PrefixTable;
pub use prefix_table::mapped_length;

/// Everything the configuration says about flows.
#[derive(Debug)]
pub struct Policy {
    workloads: HashMap<WorkloadId, WorkloadPolicy>,
    peers: PrefixTable<Authorizer>,
}

#[derive(Debug)]
struct WorkloadPolicy {
    config: WorkloadConfig,
    callers: Authorizer,
    bypass: PrefixTable<()>,
}

/// A rule for the kernel: scope, destination and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRule {
    pub scope: u32,
    pub destination: Destination,
    pub action: Action,
}

/// Why a flow is not wanted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    #[error("the workload is not in the configuration any more")]
    UnknownWorkload,
    #[error("no peer is configured at {0}")]
    NoPeer(SocketAddr),
}

impl Policy {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut peers: PrefixTable<Vec<SpiffeId>> = PrefixTable::default();
        for peer in &config.peers {
            for destination in &peer.destinations {
                // Two entries for one destination: either's identities will do.
                peers.entry(destination).extend(peer.spiffe_ids.iter().cloned());
            }
        }
        let workloads = config
            .workloads
            .iter()
            .map(|workload| (workload.id, WorkloadPolicy::new(workload)))
            .collect();
        Self { workloads, peers: peers.map(Authorizer::new) }
    }

    /// The rules that steer connections in the kernel.
    #[must_use]
    pub fn kernel_rules(&self) -> Vec<KernelRule> {
        let rule = |scope, action| move |destination| KernelRule { scope, destination, action };
        let mut rules: Vec<_> =
            self.peers.destinations().map(rule(SCOPE_ALL, Action::Protect)).collect();
        for (id, workload) in &self.workloads {
            rules.extend(workload.bypass.destinations().map(rule(*id, Action::Bypass)));
        }
        rules
    }

    /// Whose certificate will do at `destination`. The most specific entry speaks alone.
    pub fn expect_at(&self, destination: SocketAddr) -> Result<Authorizer, PolicyError> {
        self.peers.most_specific(destination).cloned().ok_or(PolicyError::NoPeer(destination))
    }

    /// How a workload treats what the network dials.
    pub fn inbound_mode(&self, workload: WorkloadId) -> Result<InboundMode, PolicyError> {
        let policy = self.workloads.get(&workload).ok_or(PolicyError::UnknownWorkload)?;
        Ok(policy.config.inbound.mode)
    }

    /// Who may call a workload.
    pub fn callers(&self, workload: WorkloadId) -> Result<Authorizer, PolicyError> {
        let policy = self.workloads.get(&workload).ok_or(PolicyError::UnknownWorkload)?;
        Ok(policy.callers.clone())
    }

    /// A workload's configuration.
    #[must_use]
    pub fn workload(&self, workload: WorkloadId) -> Option<&WorkloadConfig> {
        self.workloads.get(&workload).map(|policy| &policy.config)
    }

    /// What the kernel decides about a connection of `workload` to `destination`: the same function over the
    /// same rules.
    #[must_use]
    pub fn verdict(&self, workload: WorkloadId, destination: SocketAddr) -> Option<Verdict> {
        let policy = self.workloads.get(&workload)?;
        let rule = |action| move |bits| Rule::new(action, bits);
        let own = policy.bypass.candidates(destination);
        let all = self.peers.candidates(destination);
        let candidates = Candidates {
            own_port: own.0.map(rule(Action::Bypass)),
            own_any: own.1.map(rule(Action::Bypass)),
            all_port: all.0.map(rule(Action::Protect)),
            all_any: all.1.map(rule(Action::Protect)),
        };
        let mode = policy.config.outbound.mode;
        Some(decide(mode, &Endpoint::from(destination), &candidates))
    }

    /// True if connections that the network opens to this port of the workload belong to the agent.
    #[must_use]
    pub fn covers_inbound(&self, workload: WorkloadId, port: u16) -> bool {
        self.workloads.get(&workload).is_some_and(|policy| {
            let inbound = &policy.config.inbound;
            inbound.mode != InboundMode::Disabled
                && (inbound.ports.is_empty() || inbound.ports.contains(&port))
        })
    }
}

impl WorkloadPolicy {
    fn new(config: &WorkloadConfig) -> Self {
        let mut bypass = PrefixTable::default();
        for destination in &config.outbound.bypass {
            *bypass.entry(destination) = ();
        }
        Self {
            callers: Authorizer::new(config.inbound.allow.clone()),
            bypass,
            config: config.clone(),
        }
    }
}

/// A destination's port as kernel rules spell it.
#[must_use]
pub fn kernel_port(destination: &Destination) -> u32 {
    destination.port.map_or(PORT_ANY, u32::from)
}

/// Snapshots of policy are shared by all flows.
pub type SharedPolicy = Arc<Policy>;

#[cfg(test)]
mod tests;
