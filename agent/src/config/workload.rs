//! Workloads in the configuration.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sheath_common::workload::{InboundMode, MAX_NAME, NO_WORKLOAD};

use super::cgroup_paths::{self, CgroupPathError};
use super::identity::{SourceError, Sources, Subject};
use super::known::{Known, UnknownDomain};
use super::tls::{self, TlsSettingsError};
use super::{File, raw};
use crate::desired::{
    BypassOrigin, CgroupSelector, Inbound, Origin, Outbound, PublishedPort, Workload,
};
use crate::spiffe::{SpiffeId, TrustDomain};

/// Reads workloads, checked against the rest of the file.
pub struct WorkloadReader<'c> {
    pub file: &'c File<'c>,
    pub sources: &'c Sources,
    pub known: &'c Known<'c>,
}

/// What is wrong with the entry of a workload.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WorkloadError {
    #[error("its name is longer than {MAX_NAME} bytes")]
    LongName,
    #[error("{id} is not in the trust domain {domain}")]
    ForeignId { id: SpiffeId, domain: TrustDomain },
    #[error(transparent)]
    Cgroup(#[from] CgroupPathError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("inbound.allow names nobody, so nobody could connect")]
    NobodyAllowed,
    #[error("inbound.ports must name ports from 1 to 65535, or be left out for every port")]
    Ports,
    #[error(
        "inbound.publishedPorts: `{}:{}` leads to port {}, which is not among inbound.ports",
        .0.published,
        .0.port,
        .0.port
    )]
    PublishedPort(PublishedPort),
    #[error("inbound.addresses needs inbound.ports")]
    AddressesWithoutPorts,
    #[error("inbound.addresses: {0} is no address of a host; leave the key out for all addresses")]
    Unspecified(IpAddr),
    #[error(
        "inbound.tls.ports is for permissive mode; in strict mode the agent answers every TLS client"
    )]
    TlsPorts,
    #[error(transparent)]
    UnknownDomain(#[from] UnknownDomain),
    #[error(transparent)]
    Tls(#[from] TlsSettingsError),
}

impl WorkloadReader<'_> {
    /// # Errors
    /// What is wrong with the entry.
    pub fn read(&self, index: usize, raw: raw::Workload) -> Result<Workload, WorkloadError> {
        let name = raw.name;
        if name.len() > MAX_NAME {
            return Err(WorkloadError::LongName);
        }
        let File { path, trust_domain, capture, .. } = self.file;
        let cgroup = match raw.select.selector()? {
            CgroupSelector::Pattern(text) => {
                CgroupSelector::Pattern(cgroup_paths::pattern(&text, capture)?)
            }
            CgroupSelector::Pod(_) if !self.file.has_pods => {
                return Err(CgroupPathError::NoPods.into());
            }
            exact @ (CgroupSelector::Id(_) | CgroupSelector::Pod(_)) => exact,
        };
        if let Some(id) = raw.spiffe_id.as_ref().filter(|id| id.trust_domain() != *trust_domain) {
            let (id, domain) = (id.clone(), (*trust_domain).clone());
            return Err(WorkloadError::ForeignId { id, domain });
        }
        let subject = Subject { name: &name, spiffe_id: raw.spiffe_id.as_ref() };
        let source = self.sources.of(&subject, raw.identity)?;
        let inbound = raw.inbound.map(|inbound| self.read_inbound(inbound)).transpose()?;
        let outbound = raw.outbound.map(|outbound| Outbound {
            mode: outbound.mode.into(),
            bypass: BypassOrigin::Workload.of(outbound.bypass),
        });
        Ok(Workload {
            origin: Origin::named(path, "workloads", index, &name),
            id: NO_WORKLOAD,
            cgroup,
            spiffe_id: raw.spiffe_id,
            source,
            inbound: inbound.unwrap_or_default(),
            outbound: outbound.unwrap_or_default(),
            existing: raw.existing,
            name,
        })
    }

    fn read_inbound(&self, raw: raw::Inbound) -> Result<Inbound, WorkloadError> {
        let mode = raw.mode.into();
        let nobody = raw.allow.is_empty() && raw.allow_pins.is_empty() && raw.tls.is_none();
        if mode != InboundMode::Disabled && nobody {
            return Err(WorkloadError::NobodyAllowed);
        }
        check_ports(&raw)?;
        self.known.check_ids(&raw.allow)?;
        if raw.tls.as_ref().is_some_and(|tls| !tls.ports.is_empty())
            && mode != InboundMode::Permissive
        {
            return Err(WorkloadError::TlsPorts);
        }
        let activator = raw.activator.map(|path| cgroup_paths::activator(&path, self.file.capture));
        Ok(Inbound {
            mode,
            ports: raw.ports.unwrap_or_default(),
            published_ports: raw.published_ports,
            addresses: raw.addresses.iter().map(IpAddr::to_canonical).collect(),
            namespace: raw.namespace,
            activator: activator.transpose()?,
            allow: raw.allow.into_iter().map(Into::into).collect(),
            allow_pins: tls::pins(raw.allow_pins)?,
            tls: raw.tls.map(|inbound| tls::inbound(inbound, self.known)).transpose()?,
            probe_ports: BTreeSet::new(),
        })
    }
}

/// # Errors
/// If ports, published ports and addresses contradict each other.
fn check_ports(raw: &raw::Inbound) -> Result<(), WorkloadError> {
    if raw.ports.as_ref().is_some_and(|ports| ports.is_empty() || ports.contains(&0)) {
        return Err(WorkloadError::Ports);
    }
    if let Some(ports) = &raw.ports {
        let stray = raw.published_ports.iter().find(|published| !ports.contains(&published.port));
        if let Some(stray) = stray {
            return Err(WorkloadError::PublishedPort(*stray));
        }
    }
    if raw.ports.is_none() && !raw.addresses.is_empty() {
        return Err(WorkloadError::AddressesWithoutPorts);
    }
    if let Some(address) = raw.addresses.iter().find(|address| address.is_unspecified()) {
        return Err(WorkloadError::Unspecified(*address));
    }
    Ok(())
}
