//! Whether a rule is about a caller, as far as the caller is known.

use super::{Caller, Proved};
use crate::objects::model::authorization_policy::Rule;
use crate::objects::model::{AuthorizationPolicy, ObjectName};
use crate::objects::set::Cluster;
use crate::spiffe::SpiffeId;
use crate::trust::Pin;

/// A caller at a port, as policies see it.
pub struct View<'c> {
    pub cluster: &'c Cluster,
    pub caller: &'c Caller,
    pub port: u16,
    pub doubt: Doubt,
}

/// Whether what is not known of a caller meets a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    Excludes,
    Includes,
}

impl View<'_> {
    /// True if one of a policy's rules is about the caller.
    pub fn is_named_by(&self, (name, policy): &(ObjectName, AuthorizationPolicy)) -> bool {
        let is_meant = |rule: &Rule| {
            self.has_id(rule)
                && self.has_account(&name.namespace, rule)
                && self.is_in_namespace(rule)
                && self.is_pinned(rule)
                && self.is_in_range(rule)
        };
        policy.is_for(self.port) && policy.rules.iter().any(is_meant)
    }

    /// The answer for the caller's identity. Who is known by a certificate alone is known not to have one; of plaintext nothing is
    /// known.
    fn by_id(&self, is_meant: impl Fn(&SpiffeId) -> bool) -> bool {
        match self.caller.proved.as_ref().map(|proved| &proved.id) {
            Some(Some(id)) => is_meant(id),
            Some(None) => false,
            None => self.doubt == Doubt::Includes,
        }
    }

    /// The same, for the namespace and the name of a service account of this cluster.
    fn by_account(&self, is_meant: impl Fn(&str, &str) -> bool) -> bool {
        let Cluster { template, domain, .. } = self.cluster;
        self.by_id(|id| {
            let account = template.account(domain, id);
            account.is_some_and(|(namespace, name)| is_meant(namespace, name))
        })
    }

    fn has_id(&self, rule: &Rule) -> bool {
        rule.ids.is_empty() || self.by_id(|id| rule.ids.iter().any(|wanted| wanted.matches(id)))
    }

    fn has_account(&self, own: &str, rule: &Rule) -> bool {
        let is_meant = |namespace: &str, name: &str| {
            rule.accounts.iter().any(|wanted| {
                *wanted.name == *name && wanted.namespace.as_deref().unwrap_or(own) == namespace
            })
        };
        rule.accounts.is_empty() || self.by_account(is_meant)
    }

    fn is_in_namespace(&self, rule: &Rule) -> bool {
        let is_meant =
            |namespace: &str, _: &str| rule.namespaces.iter().any(|wanted| **wanted == *namespace);
        rule.namespaces.is_empty() || self.by_account(is_meant)
    }

    fn is_pinned(&self, rule: &Rule) -> bool {
        let is_meant = |proved: &Proved| {
            rule.pins.iter().any(|pin| match pin {
                Pin::Certificate(wanted) => *wanted == proved.certificate,
                Pin::Spki(wanted) => *wanted == proved.spki,
            })
        };
        let unknown = self.doubt == Doubt::Includes;
        rule.pins.is_empty() || self.caller.proved.as_ref().map_or(unknown, is_meant)
    }

    fn is_in_range(&self, rule: &Rule) -> bool {
        let address = self.caller.address.to_canonical();
        rule.ranges.is_empty() || rule.ranges.iter().any(|range| range.contains(&address))
    }
}
