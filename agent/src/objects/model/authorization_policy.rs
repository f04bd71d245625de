//! Who may call pods.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::selector::Selector;
use super::tls::{object_name, pins};
use super::wrong::{Within, Wrong, at_most, each, ports};
use crate::objects::schema::authorization_policy as schema;
use crate::objects::schema::authorization_policy::Action;
use crate::spiffe::{IdPattern, SpiffeId, TrustDomain};
use crate::trust::Pin;

/// Who may call pods, as far as one object says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// `None`: all pods of the namespace.
    pub selector: Option<Selector>,
    /// Ports that the rules are for; empty for every port.
    pub ports: BTreeSet<u16>,
    pub action: Action,
    /// Callers; one rule suffices.
    pub rules: Vec<Rule>,
}

/// Callers: one entry of each list that is not empty must be true of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub ids: Vec<IdPattern>,
    pub accounts: Vec<Account>,
    pub namespaces: Vec<Arc<str>>,
    pub pins: Vec<Pin>,
    pub ranges: Vec<IpNet>,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `None`: that of the policy.
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
}

impl AuthorizationPolicy {
    /// # Errors
    /// What makes no sense, with its field.
    pub fn parse(spec: &schema::AuthorizationPolicySpec) -> Result<Self, Wrong> {
        if spec.rules.is_empty() {
            return Err(Wrong::new("is empty; write whom it is about").within("rules"));
        }
        at_most("rules", &spec.rules, 32)?;
        let rules = each("rules", &spec.rules, |rule| {
            let rule = self::rule(&rule.from).within("from")?;
            match spec.action == Action::Deny && rule.is_pins_alone() {
                true => Err(Wrong::new(
                    "a Deny by pins alone keeps nobody out, who only needs another certificate",
                )
                .within("from")),
                false => Ok(rule),
            }
        })?;
        Ok(Self {
            selector: spec.selector.as_ref().map(Selector::parse).transpose().within("selector")?,
            ports: ports("ports", &spec.ports)?,
            action: spec.action,
            rules,
        })
    }

    /// True if the rules are for this port.
    #[must_use]
    pub fn is_for(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }
}

impl Rule {
    fn is_pins_alone(&self) -> bool {
        let others = self.ids.len() + self.accounts.len() + self.namespaces.len();
        others + self.ranges.len() == 0
    }
}

fn rule(spec: &schema::From) -> Result<Rule, Wrong> {
    at_most("spiffeIds", &spec.spiffe_ids, 64)?;
    at_most("serviceAccounts", &spec.service_accounts, 64)?;
    at_most("namespaces", &spec.namespaces, 64)?;
    at_most("cidrs", &spec.cidrs, 64)?;
    let rule = Rule {
        ids: each("spiffeIds", &spec.spiffe_ids, |text| id_pattern(&text.0))?,
        accounts: each("serviceAccounts", &spec.service_accounts, account)?,
        namespaces: each("namespaces", &spec.namespaces, |name| namespace(&name.0))?,
        pins: pins(&spec.pins)?,
        ranges: each("cidrs", &spec.cidrs, |text| range(&text.0))?,
    };
    match rule == Rule::default() {
        true => Err(Wrong::new(
            "names nobody; write spiffeIds, serviceAccounts, namespaces, pins or cidrs",
        )),
        false => Ok(rule),
    }
}

fn id_pattern(text: &str) -> Result<IdPattern, Wrong> {
    match text.strip_prefix("spiffe://").and_then(|rest| rest.strip_suffix("/*")) {
        Some(domain) => {
            TrustDomain::try_from(domain.to_owned()).map(IdPattern::AnyOf).map_err(Wrong::new)
        }
        None => SpiffeId::try_from(text.to_owned()).map(IdPattern::Exactly).map_err(Wrong::new),
    }
}

fn account(spec: &schema::ServiceAccount) -> Result<Account, Wrong> {
    let namespace = spec.namespace.as_ref().map(|name| self::namespace(&name.0));
    Ok(Account {
        namespace: namespace.transpose().within("namespace")?,
        name: object_name(&spec.name).within("name")?,
    })
}

/// # Errors
/// If no namespace can have that name.
pub fn namespace(text: &str) -> Result<Arc<str>, Wrong> {
    let name = crate::kubernetes::object_name(text).filter(|name| !name.contains('.'));
    name.ok_or_else(|| Wrong::new(format!("`{text}` is no name of a namespace")))
}

fn range(text: &str) -> Result<IpNet, Wrong> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let range = text.parse::<IpNet>().or_else(|_| address());
    let range = range.map_err(|_| {
        Wrong::new(format!("`{text}` is no range of addresses, like `10.0.2.0/24` or `fd00::/64`"))
    })?;
    match range.addr() == range.network() {
        true => Ok(range),
        false => Err(Wrong::new(format!(
            "`{text}` has host bits set; did you mean `{}`?",
            range.trunc()
        ))),
    }
}
