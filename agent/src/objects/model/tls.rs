//! TLS with peers that have no agent, and pins.

use std::sync::Arc;

use rustls_pki_types::DnsName;

use super::wrong::{Within, Wrong, at_most, each};
use crate::desired::CertificateChoice;
use crate::objects::schema::text::{DnsNameText, ObjectNameText};
use crate::objects::schema::tls as schema;
use crate::peer::{Choice, Names, Profile, Version};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::trust::Pin;
use crate::x509::Fingerprint;

/// TLS with a peer that has no agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub certificate: CertificateChoice,
    /// `None`: pins alone.
    pub trust: Option<Trust>,
    pub pins: Vec<Pin>,
    /// What [`Profile`] is made of; one can be.
    pub parameters: Choice,
}

/// Who vouches for a peer, and who it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The authorities of a TLS context of the same namespace.
    Context { name: Arc<str>, names: Names },
    /// The authorities that the node trusts.
    System(Names),
    /// An X.509-SVID with one of these IDs, which are of this trust domain.
    Spiffe { domain: TrustDomain, ids: Vec<SpiffeId> },
}

/// What an object says about TLS, in whatever place.
pub struct Written<'s> {
    pub certificate: Option<&'s ObjectNameText>,
    pub trust: Option<&'s schema::Trust>,
    pub expect: Option<&'s schema::Expect>,
    pub pins: &'s [schema::Pin],
    pub parameters: Choice,
}

/// The fields of TLS of a struct that has them.
macro_rules! written {
    ($spec:expr) => {
        $crate::objects::model::tls::Written {
            certificate: $spec.certificate.as_ref(),
            trust: $spec.trust.as_ref(),
            expect: $spec.expect.as_ref(),
            pins: &$spec.pins,
            parameters: $crate::peer::Choice {
                minimum: $spec.min_version.map(Into::into),
                maximum: $spec.max_version.map(Into::into),
                cipher_suites: $spec.cipher_suites.iter().map(|name| name.0.clone()).collect(),
                curves: $spec.curves.iter().map(|name| name.0.clone()).collect(),
                alpn: $spec.alpn.iter().map(|name| name.0.clone()).collect(),
            },
        }
    };
}
pub(super) use written;

impl From<schema::TlsVersion> for Version {
    fn from(version: schema::TlsVersion) -> Self {
        match version {
            schema::TlsVersion::V12 => Self::V12,
            schema::TlsVersion::V13 => Self::V13,
        }
    }
}

impl Tls {
    /// # Errors
    /// If no peer could be trusted by it, or if its parameters leave nothing to agree on.
    pub fn parse(written: Written<'_>) -> Result<Self, Wrong> {
        // Its errors name the field themselves.
        Profile::new(&written.parameters).map_err(Wrong::new)?;
        let pins = pins(written.pins)?;
        let trust = match (written.trust, written.expect) {
            (None, None) if pins.is_empty() => {
                return Err(Wrong::new("names nobody: it needs trust and expect, or pins"));
            }
            (None, None) => None,
            (None, Some(_)) => {
                let wrong = Wrong::new("needs trust, which says who may vouch for a name");
                return Err(wrong.within("expect"));
            }
            (Some(_), None) => {
                return Err(Wrong::new("needs expect, which says who it must be").within("trust"));
            }
            (Some(trust), Some(expect)) => Some(trust_of(trust, expect)?),
        };
        let certificate = certificate(written.certificate)?;
        Ok(Self { certificate, trust, pins, parameters: written.parameters })
    }

    /// The TLS contexts that it refers to.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        let certificate = match &self.certificate {
            CertificateChoice::Context(name) => Some(name.as_str()),
            CertificateChoice::Svid | CertificateChoice::Nothing => None,
        };
        let authorities = match &self.trust {
            Some(Trust::Context { name, .. }) => Some(&**name),
            _ => None,
        };
        certificate.into_iter().chain(authorities)
    }

    /// The trust domain whose authorities it needs.
    #[must_use]
    pub fn domain(&self) -> Option<&TrustDomain> {
        match &self.trust {
            Some(Trust::Spiffe { domain, .. }) => Some(domain),
            _ => None,
        }
    }
}

/// # Errors
/// If one of them is not a valid pin.
pub fn pins(list: &[schema::Pin]) -> Result<Vec<Pin>, Wrong> {
    at_most("pins", list, 32)?;
    each("pins", list, pin)
}

fn pin(spec: &schema::Pin) -> Result<Pin, Wrong> {
    let digest = |text: &str, key| {
        Fingerprint::parse(text).ok_or_else(|| {
            Wrong::new(format!(
                "`{text}` is no SHA-256 digest in hexadecimal (64 digits) or base64 (44 characters)"
            ))
            .within(key)
        })
    };
    match (&spec.certificate_sha256, &spec.spki_sha256) {
        (Some(text), None) => Ok(Pin::Certificate(digest(&text.0, "certificateSha256")?)),
        (None, Some(text)) => Ok(Pin::Spki(digest(&text.0, "spkiSha256")?)),
        _ => Err(Wrong::new("needs exactly one of certificateSha256 and spkiSha256")),
    }
}

fn certificate(name: Option<&ObjectNameText>) -> Result<CertificateChoice, Wrong> {
    match name.map(|name| name.0.as_str()) {
        None | Some("svid") => Ok(CertificateChoice::Svid),
        Some("none") => Ok(CertificateChoice::Nothing),
        Some(_) => {
            let name = name.map(object_name).transpose().within("certificate")?;
            Ok(CertificateChoice::Context(name.as_deref().unwrap_or_default().to_owned()))
        }
    }
}

fn trust_of(trust: &schema::Trust, expect: &schema::Expect) -> Result<Trust, Wrong> {
    let wrong = |field: &str, reason: &str| Err(Wrong::new(reason).within(field));
    match (&trust.tls_context, trust.system, &trust.trust_domain) {
        (Some(name), None, None) => {
            let name = object_name(name).within("trust.tlsContext")?;
            Ok(Trust::Context { name, names: names(expect)? })
        }
        (None, Some(true), None) => Ok(Trust::System(names(expect)?)),
        (None, Some(false), None) => wrong("trust.system", "can only be true"),
        (None, None, Some(domain)) => {
            let domain = TrustDomain::try_from(domain.0.clone()).map_err(Wrong::new);
            let domain = domain.within("trust.trustDomain")?;
            if !expect.uris.is_empty() || !expect.dns_names.is_empty() {
                return wrong("expect", "spiffeIds alone goes with trust.trustDomain");
            }
            if expect.spiffe_ids.is_empty() {
                return wrong("expect.spiffeIds", "is empty");
            }
            at_most("expect.spiffeIds", &expect.spiffe_ids, 32)?;
            let ids = each("expect.spiffeIds", &expect.spiffe_ids, |id| {
                let id = SpiffeId::try_from(id.0.clone()).map_err(Wrong::new)?;
                match *id.trust_domain() == domain {
                    true => Ok(id),
                    false => Err(Wrong::new(format!("{id} is not of the trust domain {domain}"))),
                }
            })?;
            Ok(Trust::Spiffe { domain, ids })
        }
        _ => wrong("trust", "needs exactly one of tlsContext, system and trustDomain"),
    }
}

/// Names, one of which the certificate must have.
fn names(expect: &schema::Expect) -> Result<Names, Wrong> {
    if !expect.spiffe_ids.is_empty() {
        let reason =
            "needs trust.trustDomain; to compare a URI name alone, write it in expect.uris";
        return Err(Wrong::new(reason).within("expect.spiffeIds"));
    }
    if expect.uris.is_empty() && expect.dns_names.is_empty() {
        let reason = "names nobody; a certificate that is merely valid is not enough";
        return Err(Wrong::new(reason).within("expect"));
    }
    at_most("expect.uris", &expect.uris, 32)?;
    at_most("expect.dnsNames", &expect.dns_names, 32)?;
    let dns = each("expect.dnsNames", &expect.dns_names, dns_name)?;
    Ok(Names {
        uris: expect.uris.iter().map(|uri| uri.0.as_str().into()).collect(),
        dns: dns.iter().map(|name| name.as_ref().into()).collect(),
    })
}

/// # Errors
/// If it is no DNS name.
pub fn dns_name(text: &DnsNameText) -> Result<DnsName<'static>, Wrong> {
    let name = DnsName::try_from(text.0.to_ascii_lowercase());
    name.map_err(|_| Wrong::new(format!("`{}` is not a DNS name", text.0)))
}

/// # Errors
/// If no object can have that name.
pub fn object_name(text: &ObjectNameText) -> Result<Arc<str>, Wrong> {
    let name = crate::kubernetes::object_name(&text.0);
    name.ok_or_else(|| Wrong::new(format!("`{}` is no name of an object", text.0)))
}
