//! Peers that are known by more than a SPIFFE ID of the own trust domain: pins, federation, external peers.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::DnsName;

use super::{Destination, Place, raw};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::tls::{Choice, Profile};
use crate::trust::{Names, OnDoubt, Pin};
use crate::x509::{Fingerprint, KeyPairFiles};

pub use raw::Family;

/// A further trust domain, or more about one.
#[derive(Clone, Debug)]
pub struct TrustDomainConfig {
    pub name: TrustDomain,
    pub bundle: Option<PathBuf>,
    pub crl: Option<CrlConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CrlConfig {
    pub files: Vec<PathBuf>,
    pub unknown: OnDoubt,
    pub expired: OnDoubt,
}

/// A certificate with a name.
#[derive(Clone, Debug)]
pub struct TlsContextConfig {
    pub name: String,
    pub files: KeyPairFiles,
}

/// A pin, or a file of certificates that are pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinConfig {
    Digest(Pin),
    File(PathBuf),
}

/// Destinations that are reached by mutual TLS, and who must answer there.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    pub destinations: Vec<Destination>,
    pub spiffe_ids: Vec<SpiffeId>,
    pub pins: Vec<PinConfig>,
}

/// A service without an agent.
#[derive(Clone, Debug)]
pub struct ExternalPeerConfig {
    pub name: String,
    pub places: Vec<Place>,
    pub family: Family,
    pub server_name: Option<DnsName<'static>>,
    pub connect_timeout: Option<Duration>,
    pub tls: StandardTls,
}

/// Clients without an agent.
#[derive(Clone, Debug)]
pub struct InboundTlsConfig {
    /// Ports of permissive mode on which every TLS client is meant for us.
    pub ports: Vec<u16>,
    pub tls: StandardTls,
}

/// TLS with a peer that has no agent.
#[derive(Clone, Debug)]
pub struct StandardTls {
    pub certificate: CertificateChoice,
    /// `None`: pins alone.
    pub trust: Option<TrustChoice>,
    pub pins: Vec<PinConfig>,
    pub profile: Profile,
}

/// The certificate that our side shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateChoice {
    Svid,
    Nothing,
    Context(String),
}

/// Who is believed, and by whose word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustChoice {
    /// The authorities in a file.
    Bundle { path: PathBuf, crl: Option<CrlConfig>, names: Names },
    /// The authorities that the system trusts.
    System { crl: Option<CrlConfig>, names: Names },
    /// X.509-SVIDs of one trust domain.
    Spiffe(Vec<SpiffeId>),
}

/// What other parts of the configuration have to offer.
pub struct Known<'c> {
    pub domains: &'c HashSet<TrustDomain>,
    /// True if bundles of any domain may turn up.
    pub any_domain: bool,
    pub contexts: &'c HashSet<String>,
}

impl Known<'_> {
    /// # Errors
    /// If there can be no bundle for an ID's trust domain.
    pub fn check_ids(&self, ids: &[SpiffeId]) -> Result<(), String> {
        let foreign =
            |id: &&SpiffeId| !self.any_domain && !self.domains.contains(id.trust_domain());
        match ids.iter().find(foreign) {
            None => Ok(()),
            Some(id) => Err(format!(
                "{id} is of the trust domain {}, for which trustDomains has no entry",
                id.trust_domain()
            )),
        }
    }
}

impl TrustDomainConfig {
    pub fn from_raw(raw: raw::TrustDomainEntry) -> Result<Self, String> {
        let name = raw.name;
        let within = |reason: String| format!("trustDomains `{name}`: {reason}");
        let crl = raw.crl.map(CrlConfig::from_raw).transpose().map_err(within)?;
        if raw.bundle.is_none() && crl.is_none() {
            return Err(within("needs a bundle, a crl, or both".to_owned()));
        }
        Ok(Self { bundle: raw.bundle, crl, name })
    }
}

impl CrlConfig {
    fn from_raw(raw: raw::CrlFiles) -> Result<Self, String> {
        if raw.files.is_empty() {
            return Err("crl.files is empty".to_owned());
        }
        Ok(Self { files: raw.files, unknown: raw.unknown.into(), expired: raw.expired.into() })
    }
}

impl TlsContextConfig {
    pub fn from_raw(raw: raw::TlsContext) -> Result<Self, String> {
        if raw.name.is_empty() || [SVID, NOTHING].contains(&raw.name.as_str()) {
            return Err(format!("tlsContexts: `{}` cannot be the name of a context", raw.name));
        }
        Ok(Self {
            name: raw.name,
            files: KeyPairFiles {
                certificate: raw.files.certificate,
                key: raw.files.key,
                allow_readable_key: raw.files.allow_readable_key,
            },
        })
    }
}

impl PinConfig {
    pub fn from_raw(raw: raw::Pin) -> Result<Self, String> {
        let digest = |text: &str, what: &str| {
            Fingerprint::parse(text)
                .ok_or_else(|| format!("{what} `{text}` is not a SHA-256 digest in hexadecimal (64 digits) or base64 (44 characters)"))
        };
        match (raw.certificate, raw.certificate_sha256, raw.spki_sha256) {
            (Some(path), None, None) => Ok(Self::File(path)),
            (None, Some(text), None) => {
                Ok(Self::Digest(Pin::Certificate(digest(&text, "certificateSha256")?)))
            }
            (None, None, Some(text)) => Ok(Self::Digest(Pin::Spki(digest(&text, "spkiSha256")?))),
            _ => Err(
                "a pin needs exactly one of `certificate`, `certificateSha256` and `spkiSha256`"
                    .to_owned(),
            ),
        }
    }

    pub fn list(raw: Vec<raw::Pin>) -> Result<Vec<Self>, String> {
        raw.into_iter().map(Self::from_raw).collect()
    }
}

impl PeerConfig {
    pub fn from_raw(index: usize, raw: raw::Peer, known: &Known<'_>) -> Result<Self, String> {
        let within = |reason: String| format!("peers[{index}]: {reason}");
        if raw.destinations.is_empty() {
            return Err(within("match is empty".to_owned()));
        }
        if raw.spiffe_ids.is_empty() && raw.pins.is_empty() {
            return Err(within("names nobody, neither by spiffeIds nor by pins".to_owned()));
        }
        check_reachable(&raw.destinations).map_err(within)?;
        known.check_ids(&raw.spiffe_ids).map_err(within)?;
        let pins = PinConfig::list(raw.pins).map_err(within)?;
        Ok(Self { destinations: raw.destinations, spiffe_ids: raw.spiffe_ids, pins })
    }
}

/// # Errors
/// If connections to one of the destinations are never protected, so that its entry would be a promise that nobody keeps.
fn check_reachable<'d>(
    destinations: impl IntoIterator<Item = &'d Destination>,
) -> Result<(), String> {
    for destination in destinations {
        if let Some(why) = destination.never_protected() {
            return Err(format!("`{destination}` {why}; no peer can be there"));
        }
    }
    Ok(())
}

impl ExternalPeerConfig {
    pub fn from_raw(raw: raw::ExternalPeer, known: &Known<'_>) -> Result<Self, String> {
        let name = raw.name.clone();
        let within = |reason: String| format!("external peer `{name}`: {reason}");
        if name.is_empty() {
            return Err("an external peer has an empty name".to_owned());
        }
        if raw.places.is_empty() {
            return Err(within("match is empty".to_owned()));
        }
        check_reachable(raw.places.iter().filter_map(Place::destination)).map_err(within)?;
        if let Some(place) = raw.places.iter().find(|place| place.is_this_host()) {
            return Err(within(format!("`{place}` is this host itself; no peer can be there")));
        }
        let server_name = raw.sni.as_deref().map(dns_name).transpose().map_err(within)?;
        Ok(Self {
            name: name.clone(),
            places: raw.places.clone(),
            family: raw.family,
            server_name,
            connect_timeout: raw.connect_timeout.map(|period| period.0),
            tls: StandardTls::from_raw(raw.into(), known).map_err(within)?,
        })
    }
}

impl InboundTlsConfig {
    pub fn from_raw(raw: raw::InboundTls, known: &Known<'_>) -> Result<Self, String> {
        let within = |reason: String| format!("inbound.tls: {reason}");
        let ports = raw.ports.clone();
        let tls = StandardTls::from_raw(raw.into(), known).map_err(within)?;
        if tls.certificate == CertificateChoice::Nothing {
            return Err(within("a server has to show a certificate".to_owned()));
        }
        Ok(Self { ports, tls })
    }
}

/// Words that `certificate` understands besides names of contexts.
const SVID: &str = "svid";
const NOTHING: &str = "none";

impl StandardTls {
    fn from_raw(raw: raw::StandardTls, known: &Known<'_>) -> Result<Self, String> {
        let certificate = match raw.certificate.as_deref() {
            None | Some(SVID) => CertificateChoice::Svid,
            Some(NOTHING) => CertificateChoice::Nothing,
            Some(name) if known.contexts.contains(name) => {
                CertificateChoice::Context(name.to_owned())
            }
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
        })?;
        let pins = PinConfig::list(raw.pins)?;
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
            Some(trust) => Some(TrustChoice::from_raw(trust, raw.expect, known)?),
        };
        Ok(Self { certificate, trust, pins, profile })
    }
}

impl TrustChoice {
    fn from_raw(
        raw: raw::TrustFrom,
        expect: raw::Expect,
        known: &Known<'_>,
    ) -> Result<Self, String> {
        let crl = raw.crl.map(CrlConfig::from_raw).transpose()?;
        let names = || -> Result<Names, String> {
            if !expect.spiffe_ids.is_empty() {
                return Err("expect.spiffeIds needs trust.trustDomain; to compare a URI name alone, write it in expect.uris".to_owned());
            }
            if expect.uris.is_empty() && expect.dns_names.is_empty() {
                return Err(
                    "expect names nobody; a certificate that is merely valid is not enough"
                        .to_owned(),
                );
            }
            let dns = expect.dns_names.iter().map(|name| dns_name(name));
            Ok(Names {
                uris: expect.uris.iter().map(|uri| Arc::from(uri.as_str())).collect(),
                dns: dns
                    .map(|name| name.map(|name| Arc::from(name.as_ref())))
                    .collect::<Result<_, _>>()?,
            })
        };
        match (raw.bundle, raw.system, raw.trust_domain) {
            (Some(path), false, None) => Ok(Self::Bundle { path, crl, names: names()? }),
            (None, true, None) => Ok(Self::System { crl, names: names()? }),
            (None, false, Some(domain)) => {
                if crl.is_some() {
                    return Err("the CRLs of a trust domain belong into trustDomains".to_owned());
                }
                if !expect.uris.is_empty() || !expect.dns_names.is_empty() {
                    return Err("trust.trustDomain goes with expect.spiffeIds alone".to_owned());
                }
                if expect.spiffe_ids.is_empty() {
                    return Err("expect.spiffeIds is empty".to_owned());
                }
                if let Some(id) = expect.spiffe_ids.iter().find(|id| *id.trust_domain() != domain) {
                    return Err(format!("{id} is not of the trust domain {domain}"));
                }
                known.check_ids(&expect.spiffe_ids)?;
                Ok(Self::Spiffe(expect.spiffe_ids))
            }
            _ => {
                Err("trust needs exactly one of `bundle`, `system: true` and `trustDomain`"
                    .to_owned())
            }
        }
    }
}

fn dns_name(text: &str) -> Result<DnsName<'static>, String> {
    DnsName::try_from(text.to_ascii_lowercase()).map_err(|_| format!("`{text}` is not a DNS name"))
}
