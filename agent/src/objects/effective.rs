//! What applies to a pod, of all that objects and labels say.
//!
//! Section by section: of WorkloadPolicies that say something about inbound connections, say, those with a selector count,
//! or those without where there are none; of several such the strictest, port by port. Modes are never less than what the
//! label asks for; ports with a mode of their own and bypasses are exceptions, which the label has no words for.

use std::collections::{BTreeMap, BTreeSet};

use super::authorization::Authorization;
use super::bypass;
use super::external::ExternalPeers;
use super::model::workload_policy::{self, InboundTls};
use super::model::{ObjectName, WorkloadPolicy};
use super::references::{Unresolved, resolve};
use super::schema::workload_policy::{InboundMode, OutboundMode, Probes};
use super::set::{Objects, within};
use super::subject::Subject;
use crate::desired::{Destination, Existing};
use crate::kubernetes::Protection;

/// What applies to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    pub inbound: Inbound,
    pub outbound: Outbound,
    pub probes: Probes,
    pub existing: Existing,
    /// Who may call.
    pub authorization: Authorization,
    /// Services without an agent that the pod may use.
    pub external_peers: ExternalPeers,
    /// WorkloadPolicies of the same rank that do not say the same.
    pub conflicts: BTreeSet<ObjectName>,
}

/// Connections to the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The mode of every other port.
    pub mode: InboundMode,
    /// Ports that have another one.
    pub ports: BTreeMap<u16, InboundMode>,
    pub clients: Clients,
}

/// Clients that have no agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Nothing is said about them.
    Unsaid,
    Tls(InboundTls),
    /// They are refused: what is said about them refers to what is not there.
    Unresolved(Unresolved),
}

/// Connections from the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    pub mode: OutboundMode,
    pub bypass: Vec<Destination>,
}

impl Inbound {
    /// The mode of a port.
    #[must_use]
    pub fn at(&self, port: u16) -> InboundMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

/// The modes that a label asks for.
fn of_label(label: Protection) -> (InboundMode, OutboundMode) {
    match label {
        Protection::Require => (InboundMode::Strict, OutboundMode::Require),
        Protection::Prefer => (InboundMode::Permissive, OutboundMode::Prefer),
        Protection::False => (InboundMode::Disabled, OutboundMode::Disabled),
    }
}

impl Effective {
    /// What applies to a pod.
    #[must_use]
    pub fn of(objects: &Objects, subject: &Subject<'_>) -> Self {
        let policies = within(&objects.workload_policies, subject.namespace);
        let (mut selected, mut is_unread) = (Policies::default(), false);
        for (name, policy) in policies {
            match policy {
                Some(policy) if subject.is_selected(policy.selector.as_ref()) => {
                    selected.0.push((name, policy));
                }
                Some(_) => {}
                None => is_unread = true,
            }
        }
        // Nobody knows what it asks for: not less than everything.
        let label = if is_unread { Protection::Require } else { subject.label };
        let authorization = Authorization::of(objects, subject);
        let external_peers = ExternalPeers::of(objects, subject);
        let mut conflicts = BTreeSet::new();
        let inbound = selected.strongest(|policy| policy.inbound.as_ref(), &mut conflicts);
        let outbound = selected.strongest(|policy| policy.outbound.as_ref(), &mut conflicts);
        let probes = selected.strongest(|policy| policy.probes.as_ref(), &mut conflicts);
        let existing = selected.strongest(|policy| policy.existing.as_ref(), &mut conflicts);
        let floor = Floor { label: of_label(label).0, authorization: &authorization };
        let clients =
            clients(&inbound, |tls| resolve(objects, subject.namespace, &tls.tls, subject.cluster));
        let mut inbound = floor.merged(&inbound);
        inbound.clients = clients;
        let mut outbound = merged_outbound(of_label(label).1, &outbound);
        if external_peers.is_unread {
            outbound.mode = OutboundMode::Require;
        }
        if outbound.mode == OutboundMode::Disabled || is_unread {
            outbound.bypass.clear();
        }
        if is_unread {
            inbound.ports.clear();
        }
        Self {
            inbound,
            outbound,
            probes: probes.into_iter().copied().max().unwrap_or_default(),
            existing: existing.into_iter().copied().max().unwrap_or_default(),
            authorization,
            external_peers,
            conflicts,
        }
    }
}

/// WorkloadPolicies that are about a pod.
#[derive(Default)]
struct Policies<'o>(Vec<(&'o ObjectName, &'o WorkloadPolicy)>);

impl<'o> Policies<'o> {
    /// What those of the highest rank say that say something. If it is not the same, they are in conflict.
    fn strongest<S: PartialEq>(
        &self,
        section: impl Fn(&'o WorkloadPolicy) -> Option<&'o S>,
        conflicts: &mut BTreeSet<ObjectName>,
    ) -> Vec<&'o S> {
        let say = |is_selective: bool| {
            let of_rank =
                self.0.iter().filter(move |(_, policy)| policy.selector.is_some() == is_selective);
            let said = of_rank.filter_map(|(name, policy)| Some((*name, section(policy)?)));
            said.collect::<Vec<_>>()
        };
        let mut said = say(true);
        if said.is_empty() {
            said = say(false);
        }
        if said.iter().any(|(_, one)| *one != said[0].1) {
            conflicts.extend(said.iter().map(|(name, _)| (*name).clone()));
        }
        said.into_iter().map(|(_, section)| section).collect()
    }
}

/// What the mode of a port is at least.
struct Floor<'a> {
    label: InboundMode,
    authorization: &'a Authorization,
}

impl Floor<'_> {
    /// Whoever may be refused has to be looked at.
    fn raised(&self, looks: bool) -> InboundMode {
        match looks {
            true => self.label.max(InboundMode::Permissive),
            false => self.label,
        }
    }

    fn merged(&self, said: &[&workload_policy::Inbound]) -> Inbound {
        let everywhere = self.raised(self.authorization.refuses_everywhere());
        let elsewhere = |inbound: &&workload_policy::Inbound| match inbound.ports.is_empty() {
            true => inbound.mode.max(everywhere),
            false => everywhere,
        };
        let mode = said.iter().map(elsewhere).max().unwrap_or(everywhere);
        let named =
            said.iter().flat_map(|inbound| inbound.ports.iter().chain(inbound.port_modes.keys()));
        let named: BTreeSet<u16> = named.copied().chain(self.authorization.ports()).collect();
        let ports = named.into_iter().map(|port| (port, self.at(port, said)));
        Inbound {
            mode,
            ports: ports.filter(|(_, at)| *at != mode).collect(),
            clients: Clients::Unsaid,
        }
    }

    fn at(&self, port: u16, said: &[&workload_policy::Inbound]) -> InboundMode {
        let floor = self.raised(self.authorization.refuses_somebody(port));
        let by = |inbound: &&workload_policy::Inbound| match inbound.port_modes.get(&port) {
            Some(exception) => *exception,
            None if inbound.ports.is_empty() || inbound.ports.contains(&port) => {
                inbound.mode.max(floor)
            }
            None => floor,
        };
        said.iter().map(by).max().unwrap_or(floor)
    }
}

/// What is said about clients without an agent: it counts if all say the same.
fn clients(
    said: &[&workload_policy::Inbound],
    resolve: impl Fn(&InboundTls) -> Result<(), Unresolved>,
) -> Clients {
    let mut tls = said.iter().map(|inbound| inbound.tls.as_ref());
    let first = tls.next().flatten();
    match first {
        Some(first) if tls.all(|tls| tls == Some(first)) => match resolve(first) {
            Ok(()) => Clients::Tls(first.clone()),
            Err(unresolved) => Clients::Unresolved(unresolved),
        },
        _ => Clients::Unsaid,
    }
}

/// The strictest: what one of them does not leave alone is not left alone.
fn merged_outbound(label: OutboundMode, said: &[&workload_policy::Outbound]) -> Outbound {
    let mode = said.iter().map(|outbound| outbound.mode).max().unwrap_or(label).max(label);
    let lists = said.iter().filter(|outbound| outbound.mode != OutboundMode::Disabled);
    let lists = lists.map(|outbound| outbound.bypass.clone());
    Outbound {
        mode,
        bypass: lists
            .reduce(|one, other| bypass::both(&one, &other))
            .map_or_else(Vec::new, |list| bypass::sorted(&list)),
    }
}
