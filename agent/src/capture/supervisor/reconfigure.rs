//! From one configuration to another: what is new is in force before what is old goes.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use sheath_common::flow::GuardedKey;

use super::Supervisor;
use super::enrolment::selectors;
use super::observed::Observed;
use crate::capture::cgroups;
use crate::capture::error::CaptureError;
use crate::config::WorkloadConfig;
use crate::policy::Policy;

/// What capture wants to know of a configuration.
#[derive(Debug)]
pub struct Reconfiguration {
    pub workloads: Vec<WorkloadConfig>,
    pub policy: Arc<Policy>,
}

impl Supervisor {
    /// Puts another configuration in force, or leaves the one before.
    pub(super) fn reconfigure(&mut self, change: Reconfiguration) -> Result<(), CaptureError> {
        refuse_own_cgroup(&change.workloads)?;
        let before = Reconfiguration {
            workloads: self.workloads.iter().map(|workload| workload.config.clone()).collect(),
            policy: self.in_force.clone(),
        };
        self.put_in_force(change).inspect_err(|_| {
            if let Err(again) = self.put_in_force(before) {
                tracing::error!(error = %again, "the configuration before is not wholly back in force");
            }
        })
    }

    /// What is wanted comes before what is not wanted goes: nothing that stays protected is ever unprotected.
    fn put_in_force(&mut self, change: Reconfiguration) -> Result<(), CaptureError> {
        let Reconfiguration { workloads, policy } = change;
        let write = || CaptureError::during("cannot write the configuration into the maps");
        let enrolled = self
            .tables
            .workloads
            .keys()
            .map_err(CaptureError::during("cannot read the map of workloads"))?;
        self.tables.add_rules(&policy.kernel_rules()).map_err(write())?;
        self.tables.add_guarded(&guarded_ports(&workloads)).map_err(write())?;
        let mut before: HashMap<_, _> =
            self.workloads.drain(..).map(|workload| (workload.config.id, workload)).collect();
        self.workloads = workloads
            .into_iter()
            .map(|config| match before.remove(&config.id) {
                Some(observed) => observed.reconfigured(config),
                None => Observed::new(config),
            })
            .collect();
        self.tables.replace_selectors(&selectors(&mut self.workloads)).map_err(write())?;
        self.routed_prefixes = policy.protected_prefixes();
        self.in_force = policy;
        self.look();
        self.forget_the_old(&enrolled)
            .map_err(CaptureError::during("cannot remove what the configuration before had"))?;
        for served in self.namespaces.values() {
            let namespace = &served.namespace;
            let published = namespace
                .publish_sources(&self.routed_prefixes)
                .and_then(|()| namespace.prune_sources(&self.routed_prefixes));
            if let Err(error) = published {
                tracing::warn!(namespace = namespace.inode(), %error, "getsockname() may show a loopback address");
            }
        }
        Ok(())
    }

    /// Removes what an earlier agent left and this configuration does not repeat: enrolments, rules, steering.
    /// Only when everything that the configuration does say is in force.
    pub(super) fn forget_the_old(&mut self, enrolled_before: &[u64]) -> io::Result<()> {
        // A workload that could not be looked at may have cgroups that were not seen.
        self.is_forgetting = self.workloads.iter().any(|workload| workload.is_unseen);
        if !self.is_forgetting {
            let current = self.recorded();
            for id in enrolled_before.iter().filter(|id| !current.contains(id)) {
                self.tables.workloads.remove(id)?;
            }
        }
        let configs = self.workloads.iter().map(|workload| &workload.config);
        self.tables.prune_rules(&self.in_force.kernel_rules())?;
        self.tables.prune_guarded(&guarded_ports(configs))?;
        self.detach_unserved()
    }

    /// What is enrolled is read before it is looked at: whatever comes meanwhile is seen.
    pub(super) fn forget_later(&mut self) -> io::Result<()> {
        let enrolled = self.tables.workloads.keys()?;
        self.look();
        self.forget_the_old(&enrolled)
    }
}

/// An agent that captured itself would dial in circles.
pub(super) fn refuse_own_cgroup(workloads: &[WorkloadConfig]) -> Result<(), CaptureError> {
    let own = cgroups::own().map_err(CaptureError::during("cannot tell the agent's own cgroup"))?;
    match workloads.iter().find(|workload| cgroups::selects(workload, &own)) {
        None => Ok(()),
        Some(workload) => Err(CaptureError::SelectsAgent {
            workload: workload.name.clone(),
            cgroup: cgroups::shown(&own),
        }),
    }
}

/// Ports on which workloads must not answer the network themselves.
pub(super) fn guarded_ports<'w>(
    workloads: impl IntoIterator<Item = &'w WorkloadConfig>,
) -> HashSet<GuardedKey> {
    workloads
        .into_iter()
        .flat_map(|workload| {
            let ports = workload.inbound.ports.iter();
            ports.map(|port| GuardedKey { workload: workload.id, port: u32::from(*port) })
        })
        .collect()
}
