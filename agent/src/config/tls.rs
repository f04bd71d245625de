//! TLS settings, pins and trust in the configuration.

use std::sync::Arc;

use rustls_pki_types::DnsName;

use super::known::{Known, UnknownDomain};
use super::raw;
use crate::desired::{
    CertificateChoice, CertificateSource, CrlFiles, InboundTls, Origin, PinSource, StandardTls,
    TlsContext, TrustChoice, TrustDomainEntry,
};
use crate::peer::{Choice, Names, Profile, ProfileError};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::trust::Pin;
use crate::x509::{Fingerprint, KeyPairFiles};

/// What is wrong with TLS settings, pins or trust in the configuration.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsSettingsError {
    #[error("needs a bundle, a crl, or both")]
    NoBundle,
    #[error("crl.files is empty")]
    NoCrlFiles,
    #[error("tlsContexts: `{0}` cannot be the name of a context")]
    ContextName(String),
    #[error("a pin needs exactly one of `certificate`, `certificateSha256` and `spkiSha256`")]
    NotOnePin,
    #[error(
        "{key} `{text}` is not a SHA-256 digest in hexadecimal (64 digits) or base64 (44 characters)"
    )]
    Digest { key: &'static str, text: String },
    #[error("inbound.tls: {0}")]
    Inbound(Box<Self>),
    #[error("a server has to present a certificate")]
    NoCertificate,
    #[error("certificate `{0}` is neither `svid`, `none` nor the name of an entry of tlsContexts")]
    Certificate(String),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error("expect needs trust, which says who may vouch for a name")]
    ExpectWithoutTrust,
    #[error("names nobody: it needs trust and expect, or pins")]
    Nobody,
    #[error("trust needs exactly one of `bundle`, `system: true` and `trustDomain`")]
    NotOneTrust,
    #[error("the CRLs of a trust domain belong in trustDomains")]
    CrlOfDomain,
    #[error(
        "expect.spiffeIds needs trust.trustDomain; to compare a URI name alone, write it in expect.uris"
    )]
    IdsWithoutDomain,
    #[error("expect names nobody; a certificate that is merely valid is not enough")]
    ExpectNobody,
    #[error("trust.trustDomain goes with expect.spiffeIds alone")]
    DomainWithoutIds,
    #[error("expect.spiffeIds is empty")]
    NoIds,
    #[error("{id} is not of the trust domain {domain}")]
    ForeignId { id: SpiffeId, domain: TrustDomain },
    #[error(transparent)]
    UnknownDomain(#[from] UnknownDomain),
    #[error("`{0}` is not a DNS name")]
    DnsName(String),
}

/// # Errors
/// What is wrong with the entry.
pub fn trust_domain(
    origin: Origin,
    raw: raw::TrustDomainEntry,
) -> Result<TrustDomainEntry, TlsSettingsError> {
    let crl = raw.crl.map(crl_files).transpose()?;
    if raw.bundle.is_none() && crl.is_none() {
        return Err(TlsSettingsError::NoBundle);
    }
    Ok(TrustDomainEntry { origin, bundle: raw.bundle, crl, name: raw.name })
}

fn crl_files(raw: raw::CrlFiles) -> Result<CrlFiles, TlsSettingsError> {
    if raw.files.is_empty() {
        return Err(TlsSettingsError::NoCrlFiles);
    }
    Ok(CrlFiles { files: raw.files, unknown: raw.unknown, expired: raw.expired })
}

/// # Errors
/// If the name is reserved.
pub fn context(origin: Origin, raw: raw::TlsContext) -> Result<TlsContext, TlsSettingsError> {
    if raw.name.is_empty() || [SVID, NOTHING].contains(&raw.name.as_str()) {
        return Err(TlsSettingsError::ContextName(raw.name));
    }
    Ok(TlsContext {
        origin,
        name: raw.name,
        files: KeyPairFiles {
            certificate: raw.files.certificate,
            key: raw.files.key,
            allow_readable_key: raw.files.allow_readable_key,
        },
    })
}

/// # Errors
/// If one of them is not a valid pin.
pub fn pins(raw: Vec<raw::Pin>) -> Result<Vec<PinSource>, TlsSettingsError> {
    raw.into_iter().map(pin).collect()
}

fn pin(raw: raw::Pin) -> Result<PinSource, TlsSettingsError> {
    let digest =
        |text: String, key| Fingerprint::parse(&text).ok_or(TlsSettingsError::Digest { key, text });
    match (raw.certificate, raw.certificate_sha256, raw.spki_sha256) {
        (Some(path), None, None) => Ok(PinSource::File(path)),
        (None, Some(text), None) => {
            Ok(PinSource::Digest(Pin::Certificate(digest(text, "certificateSha256")?)))
        }
        (None, None, Some(text)) => Ok(PinSource::Digest(Pin::Spki(digest(text, "spkiSha256")?))),
        _ => Err(TlsSettingsError::NotOnePin),
    }
}

/// # Errors
/// What is wrong, with the key.
pub fn inbound(raw: raw::InboundTls, known: &Known<'_>) -> Result<InboundTls, TlsSettingsError> {
    let within = |error| TlsSettingsError::Inbound(Box::new(error));
    let ports = raw.ports.clone();
    let tls = standard(raw.into(), known).map_err(within)?;
    if tls.certificate == CertificateChoice::Nothing {
        return Err(within(TlsSettingsError::NoCertificate));
    }
    Ok(InboundTls { ports, tls })
}

/// Values of `certificate` that are not names of contexts.
const SVID: &str = "svid";
const NOTHING: &str = "none";

/// # Errors
/// If it names an unknown context, if no peer could be trusted by it, or if its TLS parameters are unknown.
pub fn standard(raw: raw::StandardTls, known: &Known<'_>) -> Result<StandardTls, TlsSettingsError> {
    let certificate = match raw.certificate.as_deref() {
        None | Some(SVID) => CertificateChoice::Svid,
        Some(NOTHING) => CertificateChoice::Nothing,
        Some(name) if known.contexts.contains(name) => CertificateChoice::Context(name.to_owned()),
        Some(name) => return Err(TlsSettingsError::Certificate(name.to_owned())),
    };
    let profile = Profile::new(&Choice {
        minimum: raw.min_version,
        maximum: raw.max_version,
        cipher_suites: raw.cipher_suites,
        curves: raw.curves,
        alpn: raw.alpn,
    })?;
    let pins = pins(raw.pins)?;
    let expects_names = !raw.expect.uris.is_empty() || !raw.expect.dns_names.is_empty();
    let expects_ids = !raw.expect.spiffe_ids.is_empty();
    let trust = match raw.trust {
        None if expects_names || expects_ids => {
            return Err(TlsSettingsError::ExpectWithoutTrust);
        }
        None if pins.is_empty() => return Err(TlsSettingsError::Nobody),
        None => None,
        Some(trust) => Some(trust_choice(trust, raw.expect, known)?),
    };
    Ok(StandardTls { certificate, trust, pins, profile })
}

fn trust_choice(
    raw: raw::TrustFrom,
    expect: raw::Expect,
    known: &Known<'_>,
) -> Result<TrustChoice, TlsSettingsError> {
    let crl = raw.crl.map(crl_files).transpose()?;
    let from = match (raw.bundle, raw.system, raw.trust_domain) {
        (Some(path), false, None) => CertificateSource::File(path),
        (None, true, None) => CertificateSource::System,
        (None, false, Some(_)) if crl.is_some() => {
            return Err(TlsSettingsError::CrlOfDomain);
        }
        (None, false, Some(domain)) => {
            return spiffe_ids(&domain, expect, known).map(TrustChoice::Spiffe);
        }
        _ => return Err(TlsSettingsError::NotOneTrust),
    };
    Ok(TrustChoice::Authorities { from, crl, names: names(&expect)? })
}

/// Names, one of which the certificate must have.
fn names(expect: &raw::Expect) -> Result<Names, TlsSettingsError> {
    if !expect.spiffe_ids.is_empty() {
        return Err(TlsSettingsError::IdsWithoutDomain);
    }
    if expect.uris.is_empty() && expect.dns_names.is_empty() {
        return Err(TlsSettingsError::ExpectNobody);
    }
    let dns = expect.dns_names.iter().map(|name| dns_name(name));
    Ok(Names {
        uris: expect.uris.iter().map(|uri| Arc::from(uri.as_str())).collect(),
        dns: dns.map(|name| name.map(|name| Arc::from(name.as_ref()))).collect::<Result<_, _>>()?,
    })
}

/// SPIFFE IDs, one of which the certificate must have.
fn spiffe_ids(
    domain: &TrustDomain,
    expect: raw::Expect,
    known: &Known<'_>,
) -> Result<Vec<SpiffeId>, TlsSettingsError> {
    if !expect.uris.is_empty() || !expect.dns_names.is_empty() {
        return Err(TlsSettingsError::DomainWithoutIds);
    }
    if expect.spiffe_ids.is_empty() {
        return Err(TlsSettingsError::NoIds);
    }
    if let Some(id) = expect.spiffe_ids.iter().find(|id| id.trust_domain() != domain) {
        return Err(TlsSettingsError::ForeignId { id: id.clone(), domain: domain.clone() });
    }
    known.check_ids(&expect.spiffe_ids)?;
    Ok(expect.spiffe_ids)
}

/// # Errors
/// If the text is not a valid DNS name.
pub fn dns_name(text: &str) -> Result<DnsName<'static>, TlsSettingsError> {
    let name = DnsName::try_from(text.to_ascii_lowercase());
    name.map_err(|_| TlsSettingsError::DnsName(text.to_owned()))
}
