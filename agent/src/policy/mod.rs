//! The policy stage: how a flow is treated, who must be at its other end, and which rule says so.
//!
//! A peer proves who it is in its handshake. Policy hands an [`Expectation`] to the handshake, which is asked
//! once the peer has proved it. Everything that policy decides names its rule, by the [`Origin`] of what was
//! written.

mod error;
mod steering;
mod targets;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sheath_common::workload::{InboundMode, WorkloadId};

use crate::desired::{self, Desired, Existing, PublishedPort};
use crate::directory::{Found, Shared};
use crate::materials::Materials;
use crate::origin::Origin;
use crate::peer::{Expectation, Inbound, SavedTarget, Target, UidHash};
use crate::steering::PrefixTable;

pub use error::PolicyError;
pub use steering::Decision;

/// The policy for all flows, with the materials that it needs.
#[derive(Debug)]
pub struct Policy {
    workloads: HashMap<WorkloadId, WorkloadPolicy>,
    /// The other ends of outbound flows by destination.
    targets: PrefixTable<Arc<Target>>,
    /// External peers by name: what is expected of them also where their addresses have changed.
    external: HashMap<String, Target>,
    /// Who is at addresses of the cluster that nothing was written about.
    directory: Arc<Shared>,
}

#[derive(Debug)]
struct WorkloadPolicy {
    config: Arc<desired::Workload>,
    inbound: Inbound,
    bypass: PrefixTable<Origin>,
}

impl Policy {
    #[must_use]
    pub fn new(desired: &Desired, materials: &Materials) -> Self {
        let workloads = desired
            .workloads
            .iter()
            .map(|workload| (workload.id, WorkloadPolicy::new(workload, materials)))
            .collect();
        let (targets, external) = targets::build(desired, materials);
        Self { workloads, targets, external, directory: Arc::default() }
    }

    /// The same policy, by a directory.
    #[must_use]
    pub fn with_directory(self, directory: Arc<Shared>) -> Self {
        Self { directory, ..self }
    }

    /// Who must answer at `destination`, and in which TLS. Of what is written only the most specific entry counts; the directory
    /// is asked where none does.
    ///
    /// # Errors
    /// If nobody is known there who could prove anything.
    pub fn target_at(&self, destination: SocketAddr) -> Result<Target, PolicyError> {
        if let Some(target) = self.targets.most_specific(destination) {
            return Ok(Target::clone(target));
        }
        match self.directory.load().find(destination) {
            Found::Protected { identity, uid } => {
                Ok(Target::Pod { expectation: identity.expectation.clone(), uid })
            }
            Found::Pending { node } => {
                Err(PolicyError::Pending { destination, node: node.clone() })
            }
            Found::Plain => Err(PolicyError::Plain(destination)),
            Found::Bypassed => Err(PolicyError::Bypassed(destination)),
            // Which Service it is, and why nobody answers, says that one.
            Found::Unknown | Found::Closed => Err(PolicyError::Unknown(destination)),
            Found::Outside => Err(PolicyError::NoPeer(destination)),
        }
    }

    /// Whether a pod that the directory has named may still be the one at its address. It may be if nobody else is known there:
    /// that it is not protected any more, or gone, changes nothing about what it has proved.
    ///
    /// # Errors
    /// If another one is there.
    pub fn check_pod(&self, target: &Target, destination: SocketAddr) -> Result<(), PolicyError> {
        match target.pod() {
            Some(uid) if !self.may_still_be(uid, destination) => {
                Err(PolicyError::AnotherPod(destination))
            }
            _ => Ok(()),
        }
    }

    /// Who is expected now where a live flow has reached somebody by `target`.
    ///
    /// # Errors
    /// If no entry covers the destination any more.
    pub fn expectation_of(
        &self,
        target: &Target,
        destination: SocketAddr,
    ) -> Result<Expectation, PolicyError> {
        let now = match target {
            Target::External { peer, .. } => self.external.get(&peer.name).cloned(),
            Target::Agent(_) => None,
            Target::Pod { .. } => match self.targets.most_specific(destination) {
                Some(written) => Some(Target::clone(written)),
                None => {
                    self.check_pod(target, destination)?;
                    Some(target.clone())
                }
            },
        };
        match now {
            Some(target) => Ok(target.expectation().clone()),
            None => Ok(self.target_at(destination)?.expectation().clone()),
        }
    }

    /// Whether a workload's flow to a destination that nobody protects may go on. That somebody protects it now ends it only if
    /// the workload wants its earlier connections to end; that another pod is there ends it always.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check_plain(
        &self,
        workload: WorkloadId,
        pod: Option<UidHash>,
        destination: SocketAddr,
    ) -> Result<(), PolicyError> {
        let existing = self.workload(workload).map(|config| config.existing);
        match self.check_new_plain(pod, destination) {
            Err(error @ PolicyError::AnotherPod(_)) => Err(error),
            Err(error) if existing == Some(Existing::Reset) => Err(error),
            _ => Ok(()),
        }
    }

    /// The same, of a flow of which nothing has been sent yet: it may begin only if nobody is to be expected there.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check_new_plain(
        &self,
        pod: Option<UidHash>,
        destination: SocketAddr,
    ) -> Result<(), PolicyError> {
        if pod.is_some_and(|pod| !self.may_still_be(pod, destination)) {
            return Err(PolicyError::AnotherPod(destination));
        }
        match self.target_at(destination) {
            Err(PolicyError::Plain(_) | PolicyError::NoPeer(_)) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(PolicyError::Protected(destination)),
        }
    }

    /// The pod at a destination, if the directory knows one.
    #[must_use]
    pub fn pod_at(&self, destination: SocketAddr) -> Option<UidHash> {
        self.directory.load().entry(destination.ip()).map(|entry| entry.uid)
    }

    /// Who has been dialled by another process, as this policy knows it: what [`Self::expectation_of`] asks for. `None` if that
    /// cannot be said.
    #[must_use]
    pub fn target_again(&self, saved: &SavedTarget) -> Option<Target> {
        match saved {
            // By its destination alone.
            SavedTarget::Agent => Some(Target::Agent(Expectation::default())),
            SavedTarget::Pod { .. } => saved.pod(),
            // One that is not configured any more is whoever is expected at the destination.
            SavedTarget::External(name) => {
                let known = self.external.get(name).cloned();
                Some(known.unwrap_or_else(|| Target::Agent(Expectation::default())))
            }
        }
    }

    /// True if nobody else is known at the destination.
    #[must_use]
    pub fn may_still_be(&self, pod: UidHash, destination: SocketAddr) -> bool {
        self.directory.load().may_still_be(destination.ip(), pod)
    }

    /// The mode of a workload's inbound connections.
    ///
    /// # Errors
    /// If the workload is unknown.
    pub fn inbound_mode(&self, workload: WorkloadId) -> Result<InboundMode, PolicyError> {
        Ok(self.known(workload)?.config.inbound.mode)
    }

    /// True if every TLS client of a permissive port is meant for us.
    #[must_use]
    pub fn claims_every_tls(&self, workload: WorkloadId, port: u16) -> bool {
        self.known(workload).is_ok_and(|policy| {
            let tls = policy.config.inbound.tls.as_ref();
            tls.is_some_and(|tls| tls.ports.contains(&port))
        })
    }

    /// Who may call a workload, and in which TLS.
    ///
    /// # Errors
    /// If the workload is unknown.
    pub fn inbound(&self, workload: WorkloadId) -> Result<&Inbound, PolicyError> {
        Ok(&self.known(workload)?.inbound)
    }

    /// Whether a client that has dialled one port of a workload may arrive at another. That both are of the same identity
    /// does not mean that they are the same to the client.
    ///
    /// # Errors
    /// If it may not, or if the workload is unknown.
    pub fn check_port(
        &self,
        workload: WorkloadId,
        dialled: u16,
        arrived: u16,
    ) -> Result<(), PolicyError> {
        let config = &self.known(workload)?.config;
        let way = PublishedPort { published: dialled, port: arrived };
        if dialled == arrived || config.inbound.published_ports.contains(&way) {
            return Ok(());
        }
        Err(PolicyError::Led {
            dialled,
            arrived,
            rule: config.origin.field("inbound.publishedPorts"),
        })
    }

    fn known(&self, workload: WorkloadId) -> Result<&WorkloadPolicy, PolicyError> {
        self.workloads.get(&workload).ok_or(PolicyError::UnknownWorkload)
    }

    /// The rule by which a workload lets through what is not for the agent, or does not.
    #[must_use]
    pub fn inbound_mode_rule(&self, workload: WorkloadId) -> Option<Origin> {
        self.workload(workload).map(|config| config.origin.field("inbound.mode"))
    }

    /// The desired state of a workload.
    #[must_use]
    pub fn workload(&self, workload: WorkloadId) -> Option<&desired::Workload> {
        self.workloads.get(&workload).map(|policy| &*policy.config)
    }
}

impl WorkloadPolicy {
    fn new(config: &Arc<desired::Workload>, materials: &Materials) -> Self {
        let mut bypass = PrefixTable::default();
        let rule = config.origin.field("outbound.bypass");
        for one in &config.outbound.bypass {
            bypass.entry(&one.destination).get_or_insert_with(|| rule.clone());
        }
        Self { inbound: targets::inbound(config, materials), bypass, config: config.clone() }
    }
}

/// The policy in force. A flow keeps the one that it has loaded; replacing it makes nobody wait.
pub type SharedPolicy = Arc<ArcSwap<Policy>>;

#[cfg(test)]
mod tests;
