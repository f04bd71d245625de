//! Whose the ports of each namespace are.

use std::collections::HashMap;
use std::time::Instant;

use sheath_common::workload::InboundMode;

use super::Supervisor;
use super::observed::SETTLED;
use crate::capture::namespace::InboundPorts;

impl Supervisor {
    /// Works out whose each namespace's ports are, from where the workloads have been seen.
    pub(super) fn assign_ports(&mut self, problems: &mut [Option<String>]) {
        let mut ports: HashMap<u64, InboundPorts> =
            self.namespaces.keys().map(|inode| (*inode, InboundPorts::default())).collect();
        let mut passing = false;
        for (workload, problem) in self.workloads.iter().zip(problems.iter_mut()) {
            let inbound = &workload.config.inbound;
            if inbound.mode == InboundMode::Disabled {
                continue;
            }
            for inode in workload.namespaces() {
                let Some(served) = self.namespaces.get(&inode) else {
                    continue;
                };
                // The ports of the agent's own namespace are other people's too.
                if served.namespace.is_agents_own() && !workload.is_settled_in(inode) {
                    passing = true;
                    continue;
                }
                let claim = if inbound.ports.is_empty() && served.namespace.is_agents_own() {
                    Err("shares the agent's network namespace, so inbound.ports must name its ports".to_owned())
                } else {
                    ports.entry(inode).or_default().claim(workload.config.id, &inbound.ports)
                };
                if let Err(reason) = claim {
                    problem.get_or_insert(reason);
                }
            }
        }
        self.look_again = passing.then(|| Instant::now() + SETTLED);
        for (inode, ports) in ports {
            let Some(served) = self.namespaces.get(&inode) else {
                continue;
            };
            if let Err(error) = served.namespace.steer(ports) {
                for (workload, problem) in self.workloads.iter().zip(problems.iter_mut()) {
                    if workload.namespaces().contains(&inode) {
                        problem.get_or_insert(format!("inbound ports cannot be steered: {error}"));
                    }
                }
            }
        }
    }
}
