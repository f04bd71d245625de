//! Who may call a pod, by all AuthorizationPolicies that are about it.
//!
//! A Deny is stronger than any Allow. Once an Allow selects a pod, whoever no Allow names is refused, at every port.
//! Without one, every identity of the cluster's own trust domain may call, as if there were no policies. What is not known
//! about a caller is taken for the worst: no Allow is met by it, and every Deny is. Clients that `inbound.tls` names may call
//! besides those that Allows name.

mod view;

use std::net::IpAddr;

use super::model::{AuthorizationPolicy, Kind, ObjectName};
use super::schema::authorization_policy::Action;
use super::set::{Cluster, Objects, within};
use super::subject::Subject;
use crate::spiffe::SpiffeId;
use crate::x509::Fingerprint;

use view::{Doubt, View};

/// The policies about a pod, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    cluster: Cluster,
    denials: Vec<(ObjectName, AuthorizationPolicy)>,
    allowances: Vec<(ObjectName, AuthorizationPolicy)>,
    audits: Vec<(ObjectName, AuthorizationPolicy)>,
    /// Objects of the namespace that nobody can read. They may be about this pod.
    unread: Vec<(Kind, ObjectName)>,
}

/// A caller, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `None`: it speaks plaintext.
    pub proved: Option<Proved>,
    /// Its address, as the agent of the called pod sees it.
    pub address: IpAddr,
}

/// What a caller has proved by TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// `None`: it is known by its certificate alone.
    pub id: Option<SpiffeId>,
    pub certificate: Fingerprint,
    pub spki: Fingerprint,
    /// True if `inbound.tls` names it: it has no agent, and may call besides those that Allows name.
    pub is_client: bool,
}

/// Whether a caller may call, and by which policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// By this Allow; `None` where no Allow is about the pod, or where `inbound.tls` names the caller.
    Allowed(Option<ObjectName>),
    Refused(Refusal),
}

/// Why a caller may not call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the {0} {1} makes no sense, and nobody knows whom it is about")]
    Unread(Kind, ObjectName),
    #[error("the AuthorizationPolicy {0} denies it")]
    Denied(ObjectName),
    #[error("no AuthorizationPolicy allows it; the first that could is {0}")]
    NotAllowed(ObjectName),
    #[error("it is not of the trust domain of this cluster, and no AuthorizationPolicy allows it")]
    Stranger,
}

impl Authorization {
    /// Those that are about a pod.
    #[must_use]
    pub fn of(objects: &Objects, subject: &Subject<'_>) -> Self {
        let mut all = Self {
            cluster: subject.cluster.clone(),
            denials: Vec::new(),
            allowances: Vec::new(),
            audits: Vec::new(),
            unread: Vec::new(),
        };
        for (name, policy) in within(&objects.workload_policies, subject.namespace) {
            if policy.is_none() {
                all.unread.push((Kind::WorkloadPolicy, name.clone()));
            }
        }
        for (name, policy) in within(&objects.authorization_policies, subject.namespace) {
            let Some(policy) = policy else {
                all.unread.push((Kind::AuthorizationPolicy, name.clone()));
                continue;
            };
            if subject.is_selected(policy.selector.as_ref()) {
                let list = match policy.action {
                    Action::Deny => &mut all.denials,
                    Action::Allow => &mut all.allowances,
                    Action::Audit => &mut all.audits,
                };
                list.push((name.clone(), policy.clone()));
            }
        }
        all
    }

    /// True if some caller may be refused at a port, so that callers must be looked at there.
    #[must_use]
    pub fn refuses_somebody(&self, port: u16) -> bool {
        let denies = || self.denials.iter().any(|(_, policy)| policy.is_for(port));
        !self.unread.is_empty() || !self.allowances.is_empty() || denies()
    }

    /// True if that is so at every port, whatever its number.
    #[must_use]
    pub fn refuses_everywhere(&self) -> bool {
        let denies = || self.denials.iter().any(|(_, policy)| policy.ports.is_empty());
        !self.unread.is_empty() || !self.allowances.is_empty() || denies()
    }

    /// Ports that policies name.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let all = self.denials.iter().chain(&self.allowances);
        all.flat_map(|(_, policy)| policy.ports.iter().copied())
    }

    /// Whether a caller may call at a port.
    #[must_use]
    pub fn decide(&self, caller: &Caller, port: u16) -> Ruling {
        if let Some((kind, name)) = self.unread.first() {
            return Ruling::Refused(Refusal::Unread(*kind, name.clone()));
        }
        let denied = self.view(caller, port, Doubt::Includes);
        if let Some((name, _)) = self.denials.iter().find(|policy| denied.is_named_by(policy)) {
            return Ruling::Refused(Refusal::Denied(name.clone()));
        }
        if caller.proved.as_ref().is_some_and(|proved| proved.is_client) {
            return Ruling::Allowed(None);
        }
        let allowed = self.view(caller, port, Doubt::Excludes);
        let by = self.allowances.iter().find(|policy| allowed.is_named_by(policy));
        match (by, self.allowances.first()) {
            (Some((name, _)), _) => Ruling::Allowed(Some(name.clone())),
            (None, Some((first, _))) => Ruling::Refused(Refusal::NotAllowed(first.clone())),
            (None, None) => match self.is_own(caller) {
                true => Ruling::Allowed(None),
                false => Ruling::Refused(Refusal::Stranger),
            },
        }
    }

    /// The Audits that would refuse a caller that may call, if they were Allows.
    #[must_use]
    pub fn audit(&self, caller: &Caller, port: u16) -> Vec<ObjectName> {
        let is_client = caller.proved.as_ref().is_some_and(|proved| proved.is_client);
        // Refused already, or named by an Allow: one more Allow refuses nobody besides.
        if is_client || self.decide(caller, port) != Ruling::Allowed(None) {
            return Vec::new();
        }
        let allowed = self.view(caller, port, Doubt::Excludes);
        let refusing = self.audits.iter().filter(|policy| !allowed.is_named_by(policy));
        refusing.map(|(name, _)| name.clone()).collect()
    }

    fn view<'c>(&'c self, caller: &'c Caller, port: u16, doubt: Doubt) -> View<'c> {
        View { cluster: &self.cluster, caller, port, doubt }
    }

    /// Who may call without any Allow: identities of the cluster's own trust domain. Whether plaintext may come in at all
    /// is what the mode of the port says.
    fn is_own(&self, caller: &Caller) -> bool {
        caller.proved.as_ref().is_none_or(|proved| {
            let is_own = |id: &SpiffeId| *id.trust_domain() == self.cluster.domain;
            proved.id.as_ref().is_some_and(is_own)
        })
    }
}
