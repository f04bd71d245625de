//! The same once more, as plainly as it can be said: one port, one caller, one destination at a time, in the words of
//! `docs/objects.md`, from an unsorted list.

use std::net::IpAddr;

use super::{Caller, Named, Subject};
use crate::kubernetes::Protection;
use crate::objects::model::authorization_policy::Rule;
use crate::objects::model::{AuthorizationPolicy, Object, ObjectName, WorkloadPolicy};
use crate::objects::schema::authorization_policy::Action;
use crate::objects::schema::workload_policy::{InboundMode, OutboundMode};
use crate::trust::Pin;

/// WorkloadPolicies about the pod that say something of this section: those with a selector, or else those without.
fn policies<'l>(
    list: &'l [Named],
    subject: &Subject<'_>,
    says: impl Fn(&WorkloadPolicy) -> bool,
) -> Vec<&'l WorkloadPolicy> {
    let (mut narrow, mut wide) = (Vec::new(), Vec::new());
    for (name, object) in list {
        let Object::WorkloadPolicy(policy) = object else { continue };
        if *name.namespace != *subject.namespace || !says(policy) {
            continue;
        }
        match &policy.selector {
            Some(selector) if selector.matches(subject.labels) => narrow.push(policy),
            Some(_) => {}
            None => wide.push(policy),
        }
    }
    if narrow.is_empty() { wide } else { narrow }
}

fn authorizations<'l>(
    list: &'l [Named],
    subject: &Subject<'_>,
    action: Action,
) -> Vec<(&'l ObjectName, &'l AuthorizationPolicy)> {
    let mut found = Vec::new();
    for (name, object) in list {
        let Object::AuthorizationPolicy(policy) = object else { continue };
        let is_there = *name.namespace == *subject.namespace && policy.action == action;
        let selector = policy.selector.as_ref();
        if is_there && selector.is_none_or(|selector| selector.matches(subject.labels)) {
            found.push((name, policy));
        }
    }
    found.sort_by_key(|(name, _)| (*name).clone());
    found
}

pub fn inbound(list: &[Named], subject: &Subject<'_>, port: u16) -> InboundMode {
    let mut least = match subject.label {
        Protection::Require => InboundMode::Strict,
        Protection::Prefer => InboundMode::Permissive,
        Protection::False => InboundMode::Disabled,
    };
    let is_denied = authorizations(list, subject, Action::Deny)
        .iter()
        .any(|(_, policy)| policy.ports.is_empty() || policy.ports.contains(&port));
    if least == InboundMode::Disabled
        && (is_denied || !authorizations(list, subject, Action::Allow).is_empty())
    {
        least = InboundMode::Permissive;
    }
    let mut strictest = None;
    for policy in policies(list, subject, |policy| policy.inbound.is_some()) {
        let inbound = policy.inbound.as_ref().unwrap();
        let mode = if let Some(mode) = inbound.port_modes.get(&port) {
            *mode
        } else if inbound.ports.is_empty() || inbound.ports.contains(&port) {
            std::cmp::max(inbound.mode, least)
        } else {
            least
        };
        strictest = std::cmp::max(strictest, Some(mode));
    }
    strictest.unwrap_or(least)
}

/// True if a policy that counts has a mode of its own for the port.
pub fn is_exception(list: &[Named], subject: &Subject<'_>, port: u16) -> bool {
    let policies = policies(list, subject, |policy| policy.inbound.is_some());
    policies.iter().any(|policy| policy.inbound.as_ref().unwrap().port_modes.contains_key(&port))
}

pub fn outbound(list: &[Named], subject: &Subject<'_>) -> OutboundMode {
    let mut strictest = match subject.label {
        Protection::Require => OutboundMode::Require,
        Protection::Prefer => OutboundMode::Prefer,
        Protection::False => OutboundMode::Disabled,
    };
    for policy in policies(list, subject, |policy| policy.outbound.is_some()) {
        strictest = strictest.max(policy.outbound.as_ref().unwrap().mode);
    }
    strictest
}

/// True if every policy that leaves not everything alone leaves this alone.
pub fn is_bypassed(list: &[Named], subject: &Subject<'_>, to: (IpAddr, u16)) -> bool {
    let mut answer = false;
    for policy in policies(list, subject, |policy| policy.outbound.is_some()) {
        let outbound = policy.outbound.as_ref().unwrap();
        if outbound.mode == OutboundMode::Disabled {
            continue;
        }
        let is_meant = outbound.bypass.iter().any(|bypass| {
            bypass.prefix.contains(&to.0) && (bypass.port.is_none() || bypass.port == Some(to.1))
        });
        if !is_meant {
            return false;
        }
        answer = true;
    }
    answer
}

pub fn may_call(list: &[Named], subject: &Subject<'_>, caller: &Caller, port: u16) -> bool {
    for (name, policy) in authorizations(list, subject, Action::Deny) {
        if is_about(policy, port) && names(name, policy, caller, true) {
            return false;
        }
    }
    if caller.proved.as_ref().is_some_and(|proved| proved.is_client) {
        return true;
    }
    let allows = authorizations(list, subject, Action::Allow);
    if allows.is_empty() {
        return match &caller.proved {
            None => true,
            Some(proved) => proved
                .id
                .as_ref()
                .is_some_and(|id| id.as_str().starts_with("spiffe://example.org/")),
        };
    }
    allows.iter().any(|(name, policy)| is_about(policy, port) && names(name, policy, caller, false))
}

/// Audits that would refuse the caller if they were Allows, and that is what is asked: they are made Allows.
pub fn audited(
    list: &[Named],
    subject: &Subject<'_>,
    caller: &Caller,
    port: u16,
) -> Vec<ObjectName> {
    let mut found = Vec::new();
    for (name, audit) in authorizations(list, subject, Action::Audit) {
        let mut changed = list.to_vec();
        let entry = changed.iter_mut().find(|(other, object)| {
            other == name && matches!(object, Object::AuthorizationPolicy(_))
        });
        let enforced = AuthorizationPolicy { action: Action::Allow, ..audit.clone() };
        entry.unwrap().1 = Object::AuthorizationPolicy(enforced);
        if may_call(list, subject, caller, port) && !may_call(&changed, subject, caller, port) {
            found.push(name.clone());
        }
    }
    found
}

fn is_about(policy: &AuthorizationPolicy, port: u16) -> bool {
    policy.ports.is_empty() || policy.ports.contains(&port)
}

/// `in_doubt` is the answer to what is not known of a caller.
fn names(name: &ObjectName, policy: &AuthorizationPolicy, caller: &Caller, in_doubt: bool) -> bool {
    policy.rules.iter().any(|rule| {
        id(rule, caller, in_doubt)
            && account(&name.namespace, rule, caller, in_doubt)
            && namespace(rule, caller, in_doubt)
            && pin(rule, caller, in_doubt)
            && (rule.ranges.is_empty()
                || rule.ranges.iter().any(|range| range.contains(&caller.address)))
    })
}

/// The text of the caller's ID: `Err` where the caller is not known at all.
fn text(caller: &Caller) -> Result<Option<&str>, ()> {
    match &caller.proved {
        None => Err(()),
        Some(proved) => Ok(proved.id.as_ref().map(|id| id.as_str())),
    }
}

fn id(rule: &Rule, caller: &Caller, in_doubt: bool) -> bool {
    if rule.ids.is_empty() {
        return true;
    }
    let Ok(text) = text(caller) else { return in_doubt };
    rule.ids.iter().any(|pattern| {
        let pattern = match pattern {
            crate::spiffe::IdPattern::Exactly(id) => return text == Some(id.as_str()),
            crate::spiffe::IdPattern::AnyOf(domain) => format!("spiffe://{domain}/"),
        };
        text.is_some_and(|text| text.starts_with(&pattern))
    })
}

fn account(own: &str, rule: &Rule, caller: &Caller, in_doubt: bool) -> bool {
    if rule.accounts.is_empty() {
        return true;
    }
    let Ok(text) = text(caller) else { return in_doubt };
    rule.accounts.iter().any(|account| {
        let namespace = account.namespace.as_deref().unwrap_or(own);
        text == Some(&*format!("spiffe://example.org/ns/{namespace}/sa/{}", account.name))
    })
}

fn namespace(rule: &Rule, caller: &Caller, in_doubt: bool) -> bool {
    if rule.namespaces.is_empty() {
        return true;
    }
    let Ok(text) = text(caller) else { return in_doubt };
    rule.namespaces.iter().any(|namespace| {
        let start = format!("spiffe://example.org/ns/{namespace}/sa/");
        let account = text.and_then(|text| text.strip_prefix(&start));
        account.is_some_and(|account| !account.contains('/'))
    })
}

fn pin(rule: &Rule, caller: &Caller, in_doubt: bool) -> bool {
    match &caller.proved {
        _ if rule.pins.is_empty() => true,
        None => in_doubt,
        Some(proved) => {
            rule.pins.contains(&Pin::Certificate(proved.certificate))
                || rule.pins.contains(&Pin::Spki(proved.spki))
        }
    }
}
