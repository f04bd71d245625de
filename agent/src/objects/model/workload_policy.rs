//! How the connections of pods are protected.

use std::collections::{BTreeMap, BTreeSet};

use super::selector::Selector;
use super::tls::{Tls, written};
use super::wrong::{Within, Wrong, distinct, each, port_of, ports};
use crate::desired::{CertificateChoice, Destination, Existing};
use crate::objects::schema::workload_policy as schema;
use crate::objects::schema::workload_policy::{InboundMode, OutboundMode, Probes};

/// How the connections of pods are protected, as far as one object says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadPolicy {
    /// `None`: all pods of the namespace.
    pub selector: Option<Selector>,
    pub inbound: Option<Inbound>,
    pub outbound: Option<Outbound>,
    pub probes: Option<Probes>,
    pub existing: Option<Existing>,
}

/// Connections to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    pub mode: InboundMode,
    /// Ports that the mode is for; empty for every port.
    pub ports: BTreeSet<u16>,
    /// Ports with a mode of their own.
    pub port_modes: BTreeMap<u16, InboundMode>,
    pub tls: Option<InboundTls>,
}

/// TLS with clients that have no agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundTls {
    /// Permissive ports on which all TLS ends at the agent.
    pub ports: BTreeSet<u16>,
    pub tls: Tls,
}

/// Connections from a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    pub mode: OutboundMode,
    pub bypass: Vec<Destination>,
}

impl WorkloadPolicy {
    /// # Errors
    /// What makes no sense, with its field.
    pub fn parse(spec: &schema::WorkloadPolicySpec) -> Result<Self, Wrong> {
        let policy = Self {
            selector: spec.selector.as_ref().map(Selector::parse).transpose().within("selector")?,
            inbound: spec.inbound.as_ref().map(inbound).transpose().within("inbound")?,
            outbound: spec.outbound.as_ref().map(outbound).transpose().within("outbound")?,
            probes: spec.probes,
            existing: spec.existing,
        };
        if policy == (Self { selector: policy.selector.clone(), ..Self::default() }) {
            return Err(Wrong::new("says nothing; write inbound, outbound, probes or existing"));
        }
        Ok(policy)
    }
}

fn inbound(spec: &schema::InboundSpec) -> Result<Inbound, Wrong> {
    let ports = ports("ports", &spec.ports)?;
    let of = |entry: &schema::PortMode| entry.port;
    distinct("portModes", &spec.port_modes.iter().map(of).collect::<Vec<_>>(), 64)?;
    let port_modes =
        each("portModes", &spec.port_modes, |entry| match ports.contains(&entry.port) {
            true => Err(Wrong::new("is also in ports").within("port")),
            false => Ok((port_of(entry.port).within("port")?, entry.mode)),
        })?;
    let port_modes: BTreeMap<_, _> = port_modes.into_iter().collect();
    let tls = spec.tls.as_ref().map(inbound_tls).transpose().within("tls")?;
    if let Some(tls) = &tls {
        let is_permissive = |port: &u16| {
            port_modes.get(port).copied().unwrap_or(spec.mode) == InboundMode::Permissive
        };
        if !tls.ports.iter().all(is_permissive) {
            return Err(Wrong::new(
                "is for permissive ports; on a strict port every client that speaks TLS is answered",
            )
            .within("tls.ports"));
        }
        if spec.mode == InboundMode::Disabled && port_modes.is_empty() {
            return Err(Wrong::new("makes no sense with mode disabled").within("tls"));
        }
    }
    Ok(Inbound { mode: spec.mode, ports, port_modes, tls })
}

fn inbound_tls(spec: &schema::InboundTls) -> Result<InboundTls, Wrong> {
    let tls = Tls::parse(written!(spec))?;
    if tls.certificate == CertificateChoice::Nothing {
        return Err(Wrong::new("cannot be none: a server has to present one").within("certificate"));
    }
    Ok(InboundTls { ports: ports("ports", &spec.ports)?, tls })
}

fn outbound(spec: &schema::OutboundSpec) -> Result<Outbound, Wrong> {
    let texts: Vec<_> = spec.bypass.iter().map(|text| &text.0).collect();
    distinct("bypass", &texts, 64)?;
    let bypass =
        each("bypass", &texts, |text| Destination::try_from((*text).clone()).map_err(Wrong::new))?;
    if spec.mode == OutboundMode::Disabled && !bypass.is_empty() {
        return Err(Wrong::new("makes no sense with mode disabled").within("bypass"));
    }
    Ok(Outbound { mode: spec.mode, bypass })
}
