//! Workloads in the configuration.

use std::net::IpAddr;

use sheath_common::workload::{InboundMode, MAX_NAME, NO_WORKLOAD};

use super::identity::{For, Sources};
use super::known::Known;
use super::{File, cgroup_paths, raw, tls};
use crate::desired::{CgroupSelector, Inbound, Origin, Outbound, PublishedPort, Workload};

/// Reads workloads, checked against the rest of the file.
pub struct WorkloadReader<'c> {
    pub file: &'c File<'c>,
    pub sources: &'c Sources,
    pub known: &'c Known<'c>,
}

impl WorkloadReader<'_> {
    /// # Errors
    /// The reason, with the name of the workload.
    pub fn read(&self, index: usize, raw: raw::Workload) -> Result<Workload, String> {
        let name = raw.name;
        let within = |reason: String| format!("workload `{name}`: {reason}");
        if name.is_empty() {
            return Err("a workload has an empty name".to_owned());
        }
        if name.len() > MAX_NAME {
            return Err(within(format!("its name is longer than {MAX_NAME} bytes")));
        }
        let File { path, trust_domain, capture } = self.file;
        let selector = raw.select.selector().and_then(|selector| match selector {
            CgroupSelector::Pattern(text) => {
                cgroup_paths::pattern(&text, capture).map(CgroupSelector::Pattern)
            }
            CgroupSelector::Id(_) => Ok(selector),
        });
        let cgroup = selector.map_err(within)?;
        if let Some(id) = raw.spiffe_id.as_ref().filter(|id| id.trust_domain() != *trust_domain) {
            return Err(within(format!("{id} is not in the trust domain {trust_domain}")));
        }
        let subject = For { name: &name, spiffe_id: raw.spiffe_id.as_ref() };
        let source = self.sources.of(&subject, raw.identity).map_err(within)?;
        let inbound = raw.inbound.map(|inbound| self.read_inbound(inbound)).transpose();
        let outbound = raw
            .outbound
            .map(|outbound| Outbound { mode: outbound.mode.into(), bypass: outbound.bypass });
        Ok(Workload {
            origin: Origin::named(path, "workloads", index, &name),
            id: NO_WORKLOAD,
            cgroup,
            spiffe_id: raw.spiffe_id,
            source,
            inbound: inbound.map_err(within)?.unwrap_or_default(),
            outbound: outbound.unwrap_or_default(),
            existing: raw.existing,
            name,
        })
    }

    fn read_inbound(&self, raw: raw::Inbound) -> Result<Inbound, String> {
        let mode = raw.mode.into();
        let nobody = raw.allow.is_empty() && raw.allow_pins.is_empty() && raw.tls.is_none();
        if mode != InboundMode::Disabled && nobody {
            return Err("inbound.allow names nobody, so nobody could connect".to_owned());
        }
        check_ports(&raw)?;
        self.known.check_ids(&raw.allow)?;
        if raw.tls.as_ref().is_some_and(|tls| !tls.ports.is_empty())
            && mode != InboundMode::Permissive
        {
            return Err(
                "inbound.tls.ports is for permissive mode: in strict mode every TLS client is ours"
                    .to_owned(),
            );
        }
        let activator = raw.activator.map(|path| cgroup_paths::activator(&path, self.file.capture));
        Ok(Inbound {
            mode,
            ports: raw.ports.unwrap_or_default(),
            published_ports: raw.published_ports,
            addresses: raw.addresses.iter().map(IpAddr::to_canonical).collect(),
            namespace: raw.namespace,
            activator: activator.transpose()?,
            allow: raw.allow,
            allow_pins: tls::pins(raw.allow_pins)?,
            tls: raw.tls.map(|inbound| tls::inbound(inbound, self.known)).transpose()?,
        })
    }
}

/// # Errors
/// If ports, published ports and addresses contradict each other.
fn check_ports(raw: &raw::Inbound) -> Result<(), String> {
    if raw.ports.as_ref().is_some_and(|ports| ports.is_empty() || ports.contains(&0)) {
        return Err("inbound.ports must name ports from 1 to 65535, or be left out for every port"
            .to_owned());
    }
    if let Some(ports) = &raw.ports {
        let stray = raw.published_ports.iter().find(|published| !ports.contains(&published.port));
        if let Some(PublishedPort { published, port }) = stray {
            return Err(format!(
                "inbound.publishedPorts: `{published}:{port}` leads to port {port}, which is not among inbound.ports"
            ));
        }
    }
    if raw.ports.is_none() && !raw.addresses.is_empty() {
        return Err("inbound.addresses needs inbound.ports".to_owned());
    }
    if let Some(address) = raw.addresses.iter().find(|address| address.is_unspecified()) {
        return Err(format!(
            "inbound.addresses: {address} is no address of a host; leave the key out for all addresses"
        ));
    }
    Ok(())
}
