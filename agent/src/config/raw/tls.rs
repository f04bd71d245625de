//! The keys about peers and their TLS.

use std::path::PathBuf;

use serde::Deserialize;

use super::values::{Period, parsed, parsed_list, parsed_option};
use crate::desired::{Destination, Family, Place};
use crate::peer::Version;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::trust::OnDoubt;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Peer {
    #[serde(rename = "match", deserialize_with = "parsed_list")]
    pub destinations: Vec<Destination>,
    #[serde(default, deserialize_with = "parsed_list")]
    pub spiffe_ids: Vec<SpiffeId>,
    #[serde(default)]
    pub pins: Vec<Pin>,
}

/// A pinned certificate or key: exactly one of the keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Pin {
    pub certificate: Option<PathBuf>,
    pub certificate_sha256: Option<String>,
    pub spki_sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustDomainEntry {
    #[serde(deserialize_with = "parsed")]
    pub name: TrustDomain,
    pub bundle: Option<PathBuf>,
    pub crl: Option<CrlFiles>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrlFiles {
    pub files: Vec<PathBuf>,
    #[serde(default)]
    pub unknown: OnDoubt,
    #[serde(default)]
    pub expired: OnDoubt,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsContext {
    pub name: String,
    pub files: KeyPairFiles,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KeyPairFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    #[serde(default)]
    pub allow_readable_key: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExternalPeer {
    pub name: String,
    #[serde(rename = "match", deserialize_with = "parsed_list")]
    pub places: Vec<Place>,
    #[serde(default)]
    pub family: Family,
    pub sni: Option<String>,
    pub connect_timeout: Option<Period>,
    // The keys of `StandardTls`, which serde cannot flatten while it refuses unknown keys.
    pub certificate: Option<String>,
    pub trust: Option<TrustFrom>,
    #[serde(default)]
    pub expect: Expect,
    #[serde(default)]
    pub pins: Vec<Pin>,
    #[serde(default)]
    pub alpn: Vec<String>,
    #[serde(default, deserialize_with = "parsed_option")]
    pub min_version: Option<Version>,
    #[serde(default, deserialize_with = "parsed_option")]
    pub max_version: Option<Version>,
    #[serde(default)]
    pub cipher_suites: Vec<String>,
    #[serde(default)]
    pub curves: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InboundTls {
    #[serde(default)]
    pub ports: Vec<u16>,
    pub certificate: Option<String>,
    pub trust: Option<TrustFrom>,
    #[serde(default)]
    pub expect: Expect,
    #[serde(default)]
    pub pins: Vec<Pin>,
    #[serde(default)]
    pub alpn: Vec<String>,
    #[serde(default, deserialize_with = "parsed_option")]
    pub min_version: Option<Version>,
    #[serde(default, deserialize_with = "parsed_option")]
    pub max_version: Option<Version>,
    #[serde(default)]
    pub cipher_suites: Vec<String>,
    #[serde(default)]
    pub curves: Vec<String>,
}

/// TLS with a peer that has no agent, in either direction.
#[derive(Debug)]
pub struct StandardTls {
    pub certificate: Option<String>,
    pub trust: Option<TrustFrom>,
    pub expect: Expect,
    pub pins: Vec<Pin>,
    pub alpn: Vec<String>,
    pub min_version: Option<Version>,
    pub max_version: Option<Version>,
    pub cipher_suites: Vec<String>,
    pub curves: Vec<String>,
}

macro_rules! split_off_tls {
    ($raw:expr) => {
        StandardTls {
            certificate: $raw.certificate,
            trust: $raw.trust,
            expect: $raw.expect,
            pins: $raw.pins,
            alpn: $raw.alpn,
            min_version: $raw.min_version,
            max_version: $raw.max_version,
            cipher_suites: $raw.cipher_suites,
            curves: $raw.curves,
        }
    };
}

impl From<InboundTls> for StandardTls {
    fn from(raw: InboundTls) -> Self {
        split_off_tls!(raw)
    }
}

impl From<ExternalPeer> for StandardTls {
    fn from(raw: ExternalPeer) -> Self {
        split_off_tls!(raw)
    }
}

/// The authorities that a chain must lead to: exactly one of the first three keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TrustFrom {
    pub bundle: Option<PathBuf>,
    #[serde(default)]
    pub system: bool,
    #[serde(default, deserialize_with = "parsed_option")]
    pub trust_domain: Option<TrustDomain>,
    pub crl: Option<CrlFiles>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Expect {
    #[serde(default, deserialize_with = "parsed_list")]
    pub spiffe_ids: Vec<SpiffeId>,
    #[serde(default)]
    pub uris: Vec<String>,
    #[serde(default)]
    pub dns_names: Vec<String>,
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("TLS version `{text}` is neither `1.2` nor `1.3`"))
    }
}
