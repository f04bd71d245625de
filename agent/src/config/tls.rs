//! TLS settings, pins and trust in the configuration.

use std::sync::Arc;

use rustls_pki_types::DnsName;

use super::known::Known;
use super::raw;
use crate::desired::{
    CertificateChoice, CertificateSource, CrlFiles, InboundTls, Origin, PinSource, StandardTls,
    TlsContext, TrustChoice, TrustDomainEntry,
};
use crate::peer::{Choice, Names, Profile};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::trust::Pin;
use crate::x509::{Fingerprint, KeyPairFiles};

/// # Errors
/// The reason, with the name of the domain.
pub fn trust_domain(
    origin: Origin,
    raw: raw::TrustDomainEntry,
) -> Result<TrustDomainEntry, String> {
    let name = raw.name;
    let within = |reason: String| format!("trustDomains `{name}`: {reason}");
    let crl = raw.crl.map(crl_files).transpose().map_err(within)?;
    if raw.bundle.is_none() && crl.is_none() {
        return Err(within("needs a bundle, a crl, or both".to_owned()));
    }
    Ok(TrustDomainEntry { origin, bundle: raw.bundle, crl, name })
}

fn crl_files(raw: raw::CrlFiles) -> Result<CrlFiles, String> {
    if raw.files.is_empty() {
        return Err("crl.files is empty".to_owned());
    }
    Ok(CrlFiles { files: raw.files, unknown: raw.unknown, expired: raw.expired })
}

/// # Errors
/// If the name is reserved.
pub fn context(origin: Origin, raw: raw::TlsContext) -> Result<TlsContext, String> {
    if raw.name.is_empty() || [SVID, NOTHING].contains(&raw.name.as_str()) {
        return Err(format!("tlsContexts: `{}` cannot be the name of a context", raw.name));
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
pub fn pins(raw: Vec<raw::Pin>) -> Result<Vec<PinSource>, String> {
    raw.into_iter().map(pin).collect()
}

fn pin(raw: raw::Pin) -> Result<PinSource, String> {
    let digest = |text: &str, what: &str| {
        Fingerprint::parse(text)
            .ok_or_else(|| format!("{what} `{text}` is not a SHA-256 digest in hexadecimal (64 digits) or base64 (44 characters)"))
    };
    match (raw.certificate, raw.certificate_sha256, raw.spki_sha256) {
        (Some(path), None, None) => Ok(PinSource::File(path)),
        (None, Some(text), None) => {
            Ok(PinSource::Digest(Pin::Certificate(digest(&text, "certificateSha256")?)))
        }
        (None, None, Some(text)) => Ok(PinSource::Digest(Pin::Spki(digest(&text, "spkiSha256")?))),
        _ => Err("a pin needs exactly one of `certificate`, `certificateSha256` and `spkiSha256`"
            .to_owned()),
    }
}

/// # Errors
/// The reason, with the key.
pub fn inbound(raw: raw::InboundTls, known: &Known<'_>) -> Result<InboundTls, String> {
    let within = |reason: String| format!("inbound.tls: {reason}");
    let ports = raw.ports.clone();
    let tls = standard(raw.into(), known).map_err(within)?;
    if tls.certificate == CertificateChoice::Nothing {
        return Err(within("a server has to show a certificate".to_owned()));
    }
    Ok(InboundTls { ports, tls })
}

/// Values of `certificate` that are not names of contexts.
const SVID: &str = "svid";
const NOTHING: &str = "none";

/// # Errors
/// If it names an unknown context, if no peer could be trusted by it, or if its TLS parameters are unknown.
pub fn standard(raw: raw::StandardTls, known: &Known<'_>) -> Result<StandardTls, String> {
    let certificate = match raw.certificate.as_deref() {
        None | Some(SVID) => CertificateChoice::Svid,
        Some(NOTHING) => CertificateChoice::Nothing,
        Some(name) if known.contexts.contains(name) => CertificateChoice::Context(name.to_owned()),
        Some(name) => {
            return Err(format!(
                "certificate `{name}` is neither `svid`, `none` nor the name of an entry of tlsContexts"
            ));
        }
    };
    let profile = Profile::new(&Choice {
        minimum: raw.min_version,
        maximum: raw.max_version,
        cipher_suites: raw.cipher_suites,
        curves: raw.curves,
        alpn: raw.alpn,
    })
    .map_err(|error| error.to_string())?;
    let pins = pins(raw.pins)?;
    let expects_names = !raw.expect.uris.is_empty() || !raw.expect.dns_names.is_empty();
    let expects_ids = !raw.expect.spiffe_ids.is_empty();
    let trust = match raw.trust {
        None if expects_names || expects_ids => {
            return Err("expect needs trust, which says who may vouch for a name".to_owned());
        }
        None if pins.is_empty() => {
            return Err("names nobody: it needs trust and expect, or pins".to_owned());
        }
        None => None,
        Some(trust) => Some(trust_choice(trust, raw.expect, known)?),
    };
    Ok(StandardTls { certificate, trust, pins, profile })
}

fn trust_choice(
    raw: raw::TrustFrom,
    expect: raw::Expect,
    known: &Known<'_>,
) -> Result<TrustChoice, String> {
    let crl = raw.crl.map(crl_files).transpose()?;
    let from = match (raw.bundle, raw.system, raw.trust_domain) {
        (Some(path), false, None) => CertificateSource::File(path),
        (None, true, None) => CertificateSource::System,
        (None, false, Some(_)) if crl.is_some() => {
            return Err("the CRLs of a trust domain belong into trustDomains".to_owned());
        }
        (None, false, Some(domain)) => {
            return spiffe_ids(&domain, expect, known).map(TrustChoice::Spiffe);
        }
        _ => {
            return Err(
                "trust needs exactly one of `bundle`, `system: true` and `trustDomain`".to_owned()
            );
        }
    };
    Ok(TrustChoice::Authorities { from, crl, names: names(&expect)? })
}

/// Names, one of which the certificate must have.
fn names(expect: &raw::Expect) -> Result<Names, String> {
    if !expect.spiffe_ids.is_empty() {
        return Err("expect.spiffeIds needs trust.trustDomain; to compare a URI name alone, write it in expect.uris".to_owned());
    }
    if expect.uris.is_empty() && expect.dns_names.is_empty() {
        return Err(
            "expect names nobody; a certificate that is merely valid is not enough".to_owned()
        );
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
) -> Result<Vec<SpiffeId>, String> {
    if !expect.uris.is_empty() || !expect.dns_names.is_empty() {
        return Err("trust.trustDomain goes with expect.spiffeIds alone".to_owned());
    }
    if expect.spiffe_ids.is_empty() {
        return Err("expect.spiffeIds is empty".to_owned());
    }
    if let Some(id) = expect.spiffe_ids.iter().find(|id| id.trust_domain() != domain) {
        return Err(format!("{id} is not of the trust domain {domain}"));
    }
    known.check_ids(&expect.spiffe_ids)?;
    Ok(expect.spiffe_ids)
}

/// # Errors
/// If the text is not a valid DNS name.
pub fn dns_name(text: &str) -> Result<DnsName<'static>, String> {
    DnsName::try_from(text.to_ascii_lowercase()).map_err(|_| format!("`{text}` is not a DNS name"))
}
