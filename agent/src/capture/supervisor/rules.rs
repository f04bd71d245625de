//! The policy's rules in the kernel. New rules are in force before old ones are removed: nothing
//! that stays protected is ever unprotected.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use sheath_common::flow::GuardedKey;

use crate::capture::kernel::maps::Maps;
use crate::desired::{self, Inbound};
use crate::steering::Steering;

/// The policy in force in the kernel.
#[derive(Debug)]
pub struct Rules {
    maps: Arc<Maps>,
    policy: Arc<dyn Steering>,
    /// Ports on which workloads must not answer the network themselves.
    guarded: HashSet<GuardedKey>,
    /// Ports on which the kubelet may call workloads all the same.
    probed: HashSet<GuardedKey>,
}

impl Rules {
    /// Puts the rules of a policy in force, beside those of an earlier agent.
    ///
    /// # Errors
    /// If a map cannot be written, for want of room for instance.
    pub fn add_first(
        maps: Arc<Maps>,
        policy: Arc<dyn Steering>,
        workloads: &[Arc<desired::Workload>],
    ) -> io::Result<Self> {
        let mut rules =
            Self { maps, policy: policy.clone(), guarded: HashSet::new(), probed: HashSet::new() };
        rules.add(policy, workloads)?;
        Ok(rules)
    }

    /// Puts the rules of another policy in force, beside those that are. [`Self::prune`] ends the latter.
    ///
    /// # Errors
    /// If a map cannot be written; then the policy before is still the one that counts.
    pub fn add(
        &mut self,
        policy: Arc<dyn Steering>,
        workloads: &[Arc<desired::Workload>],
    ) -> io::Result<()> {
        let guarded = ports_of(workloads, |inbound| inbound.ports.iter());
        let probed = ports_of(workloads, |inbound| inbound.probe_ports.iter());
        self.maps.destinations.add(&policy.kernel_rules())?;
        self.maps.add_guarded(&guarded)?;
        self.maps.probes.add_ports(&probed)?;
        self.policy = policy;
        (self.guarded, self.probed) = (guarded, probed);
        Ok(())
    }

    /// Removes all rules but those of the policy. Only once everything else that its configuration says is in force.
    ///
    /// # Errors
    /// If a map cannot be read or written.
    pub fn prune(&self) -> io::Result<()> {
        self.maps.destinations.prune(&self.policy.kernel_rules())?;
        self.maps.prune_guarded(&self.guarded)?;
        self.maps.probes.prune_ports(&self.probed)
    }

    pub fn policy(&self) -> &Arc<dyn Steering> {
        &self.policy
    }
}

fn ports_of<'w, P: Iterator<Item = &'w u16>>(
    workloads: &'w [Arc<desired::Workload>],
    ports: impl Fn(&'w Inbound) -> P,
) -> HashSet<GuardedKey> {
    let of_workload = |workload: &'w Arc<desired::Workload>| {
        let key = |port: &u16| GuardedKey { workload: workload.id, port: u32::from(*port) };
        ports(&workload.inbound).map(key)
    };
    workloads.iter().flat_map(of_workload).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::supervisor::samples::configs;

    #[test]
    fn every_declared_port_of_every_workload_is_guarded() {
        let workloads = configs(&["web", "db"]);
        let guarded = ports_of(&workloads, |inbound| inbound.ports.iter());
        assert_eq!(guarded.len(), 4);
        for workload in &workloads {
            assert!(guarded.contains(&GuardedKey { workload: workload.id, port: 81 }));
        }
    }
}
