//! Services without an agent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::DnsName;

use super::authorization_policy::namespace;
use super::selector::Selector;
use super::tls::{Tls, dns_name, written};
use super::wrong::{Within, Wrong, at_most, distinct, each};
use crate::desired::{Family, Place};
use crate::objects::schema::external_peer as schema;
use crate::objects::schema::text::PeriodText;

/// A service without an agent, and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalPeer {
    pub places: Vec<Place>,
    pub users: Users,
    pub family: Family,
    /// Server name (SNI), if it is not the DNS name of the place.
    pub server_name: Option<DnsName<'static>>,
    pub connect_timeout: Option<Duration>,
    pub tls: Tls,
}

/// Who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Users {
    /// All pods of its namespace.
    Namespace,
    /// Some of them.
    Selected(Selector),
    /// All pods of these namespaces.
    Exported(BTreeSet<Arc<str>>),
    /// All pods.
    Everybody,
}

impl ExternalPeer {
    /// # Errors
    /// What makes no sense, with its field.
    pub fn parse(spec: &schema::ExternalPeerSpec) -> Result<Self, Wrong> {
        let texts: Vec<_> = spec.places.iter().map(|text| &text.0).collect();
        if texts.is_empty() {
            return Err(Wrong::new("is empty; write where it is").within("match"));
        }
        distinct("match", &texts, 64)?;
        Ok(Self {
            places: each("match", &texts, |text| place(text))?,
            users: users(spec)?,
            family: spec.family.unwrap_or_default(),
            server_name: spec.sni.as_ref().map(dns_name).transpose().within("sni")?,
            connect_timeout: {
                let timeout = spec.connect_timeout.as_ref().map(period);
                timeout.transpose().within("connectTimeout")?
            },
            tls: Tls::parse(written!(spec))?,
        })
    }
}

fn place(text: &str) -> Result<Place, Wrong> {
    let place = Place::try_from(text.to_owned()).map_err(Wrong::new)?;
    if place.is_this_host() {
        return Err(Wrong::new(format!(
            "`{text}` never leaves the machine, and is never protected"
        )));
    }
    match place.destination().and_then(|destination| destination.never_protected()) {
        Some(why) => Err(Wrong::new(format!("{place} {why}"))),
        None => Ok(place),
    }
}

fn users(spec: &schema::ExternalPeerSpec) -> Result<Users, Wrong> {
    at_most("exportTo", &spec.export_to, 64)?;
    match (&spec.selector, spec.export_to.as_slice()) {
        (None, []) => Ok(Users::Namespace),
        (Some(selector), []) => Selector::parse(selector).map(Users::Selected).within("selector"),
        (Some(_), _) => Err(Wrong::new("is for pods of this namespace, and exportTo names others")
            .within("selector")),
        (None, all) if all.iter().any(|name| name.0 == "*") => Ok(Users::Everybody),
        (None, named) => {
            let named = each("exportTo", named, |name| namespace(&name.0))?;
            Ok(Users::Exported(named.into_iter().collect()))
        }
    }
}

/// # Errors
/// If it is no length of time, or none at all.
pub fn period(text: &PeriodText) -> Result<Duration, Wrong> {
    let text = &text.0;
    match humantime::parse_duration(text) {
        Ok(period) if !period.is_zero() => Ok(period),
        Ok(_) => Err(Wrong::new(format!("`{text}` must be longer than zero"))),
        Err(_) => Err(Wrong::new(format!(
            "`{text}` is not a length of time; write it like `500ms`, `10s`, `5m` or `24h`"
        ))),
    }
}
