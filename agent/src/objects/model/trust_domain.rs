//! Who pods are, and which other trust domains are believed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::external_peer::period;
use super::template::IdentityTemplate;
use super::tls::object_name;
use super::tls_context::{Crl, data_key};
use super::wrong::{Within, Wrong, at_most};
use crate::objects::schema::trust_domain as schema;
use crate::spiffe;

/// Who the cluster's pods are, and whom they believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomain {
    pub trust_domain: spiffe::TrustDomain,
    pub template: IdentityTemplate,
    pub issuer: Issuer,
    pub svid_ttl: Duration,
    /// Other trust domains.
    pub federated: BTreeMap<spiffe::TrustDomain, Federated>,
}

/// Who issues the certificates of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuer {
    Controller,
    /// The SPIRE agent behind this socket.
    Spire(PathBuf),
}

/// Where the authorities of another trust domain are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federated {
    pub config_map: Arc<str>,
    /// The key of the authorities.
    pub bundle: String,
    pub crl: Option<Crl>,
}

const BUNDLE: &str = "bundle.pem";
const SVID_TTL: Duration = Duration::from_secs(24 * 60 * 60);
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl TrustDomain {
    /// # Errors
    /// What makes no sense, with its field.
    pub fn parse(spec: &schema::TrustDomainSpec) -> Result<Self, Wrong> {
        let trust_domain = domain(&spec.trust_domain.0).within("trustDomain")?;
        let template = spec.identity_template.as_deref().map(IdentityTemplate::parse);
        let issuer = spec.issuer.as_ref().map(issuer).transpose().within("issuer")?;
        at_most("trustDomains", &spec.trust_domains, 64)?;
        let mut federated = BTreeMap::new();
        for (index, entry) in spec.trust_domains.iter().enumerate() {
            let key = format!("trustDomains[{index}]");
            let name = domain(&entry.name.0).within("name").within(&key)?;
            if name == trust_domain || federated.contains_key(&name) {
                let wrong = Wrong::new(format!("{name} is there twice, or the cluster's own"));
                return Err(wrong.within("name").within(&key));
            }
            federated.insert(name, self::federated(entry).within(&key)?);
        }
        Ok(Self {
            trust_domain,
            template: template.transpose().within("identityTemplate")?.unwrap_or_default(),
            issuer: issuer.unwrap_or(Issuer::Controller),
            svid_ttl: {
                let ttl = spec.svid_ttl.as_ref().map(svid_ttl);
                ttl.transpose().within("svidTtl")?.unwrap_or(SVID_TTL)
            },
            federated,
        })
    }
}

fn domain(text: &str) -> Result<spiffe::TrustDomain, Wrong> {
    spiffe::TrustDomain::try_from(text.to_owned()).map_err(Wrong::new)
}

fn issuer(spec: &schema::Issuer) -> Result<Issuer, Wrong> {
    match (&spec.controller, &spec.spire) {
        (Some(_), None) => Ok(Issuer::Controller),
        (None, Some(spire)) if spire.socket.is_absolute() => {
            Ok(Issuer::Spire(spire.socket.clone()))
        }
        (None, Some(_)) => Err(Wrong::new("must be an absolute path").within("spire.socket")),
        _ => Err(Wrong::new("needs exactly one of controller and spire")),
    }
}

fn svid_ttl(text: &crate::objects::schema::text::PeriodText) -> Result<Duration, Wrong> {
    match period(text)? {
        ttl if (SHORTEST..=LONGEST).contains(&ttl) => Ok(ttl),
        _ => Err(Wrong::new(format!("`{}` is not from `1m` to `8760h`", text.0))),
    }
}

fn federated(spec: &schema::FederatedDomain) -> Result<Federated, Wrong> {
    let crl = spec.crl.as_ref().map(|crl| Crl::new(&crl.key, crl.unknown, crl.expired));
    Ok(Federated {
        config_map: object_name(&spec.config_map).within("configMap")?,
        bundle: data_key(spec.bundle.as_ref().map_or(BUNDLE, |key| &key.0)).within("bundle")?,
        crl: crl.transpose()?,
    })
}
