//! TLS with peers that have no agent: the fields that external peers and `inbound.tls` have in common.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rules::{Rule, SET, rules};
use super::text::{Digest, DnsNameText, ObjectNameText, SpiffeIdText, TrustDomainName, UriText};
use crate::peer;

/// Who vouches for the other side: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    (
        "[has(self.tlsContext), has(self.system), has(self.trustDomain)].filter(given, given).size() == 1",
        "trust needs exactly one of tlsContext, system and trustDomain",
    ),
    ("!has(self.system) || self.system", "trust.system can only be true; leave it out otherwise"),
])))]
pub struct Trust {
    /// The authorities in the Secret of a TlsContext of this namespace, with its CRL if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_context: Option<ObjectNameText>,
    /// The authorities that the node trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<bool>,
    /// The authorities of a trust domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<TrustDomainName>,
}

/// Names, one of which the certificate of the other side must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "has(self.spiffeIds) || has(self.uris) || has(self.dnsNames)",
    "expect names nobody; a certificate that is merely valid is not enough: write spiffeIds, uris or dnsNames",
)])))]
pub struct Expect {
    /// SPIFFE IDs of the trust domain in `trust.trustDomain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = SET))]
    pub spiffe_ids: Vec<SpiffeIdText>,
    /// URIs, compared byte for byte.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = SET))]
    pub uris: Vec<UriText>,
    /// DNS names. A wildcard in the certificate counts for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = SET))]
    pub dns_names: Vec<DnsNameText>,
}

/// A pinned certificate or key: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "has(self.certificateSha256) != has(self.spkiSha256)",
    "a pin needs exactly one of certificateSha256 and spkiSha256",
)])))]
pub struct Pin {
    /// SHA-256 of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<Digest>,
    /// SHA-256 of the certificate's SubjectPublicKeyInfo: any certificate with this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spki_sha256: Option<Digest>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V12,
    #[serde(rename = "1.3")]
    V13,
}

/// A text that is one of those that the TLS library has.
macro_rules! one_of {
    ($(#[doc = $doc:literal])* $name:ident, $known:path) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "enum": $known().collect::<Vec<_>>() })
            }
        }
    };
}

one_of!(
    /// A cipher suite.
    SuiteName,
    peer::suite_names
);
one_of!(
    /// A key agreement.
    CurveName,
    peer::curve_names
);

/// What the fields must be together.
pub const RULES: [Rule; 7] = [
    ("has(self.trust) || has(self.pins)", "names nobody: it needs trust and expect, or pins"),
    (
        "!has(self.expect) || has(self.trust)",
        "expect needs trust, which says who may vouch for a name",
    ),
    ("!has(self.trust) || has(self.expect)", "trust needs expect, which says who it must be"),
    (
        "!has(self.trust) || !has(self.expect) || has(self.trust.trustDomain) == has(self.expect.spiffeIds)",
        "expect.spiffeIds and trust.trustDomain need one another; to compare a URI name alone, write it in expect.uris",
    ),
    (
        "!has(self.trust) || !has(self.expect) || !has(self.trust.trustDomain) || (!has(self.expect.uris) && !has(self.expect.dnsNames))",
        "trust.trustDomain goes with expect.spiffeIds alone; leave expect.uris and expect.dnsNames out",
    ),
    (
        "!has(self.trust) || !has(self.expect) || !has(self.trust.trustDomain) || !has(self.expect.spiffeIds) || self.expect.spiffeIds.all(id, id.startsWith('spiffe://' + self.trust.trustDomain + '/'))",
        "expect.spiffeIds has an ID of another trust domain than trust.trustDomain",
    ),
    (
        "!has(self.maxVersion) || self.maxVersion == '1.3' || (has(self.minVersion) && self.minVersion == '1.2')",
        "maxVersion is lower than minVersion, which is 1.3 unless it is said",
    ),
];

/// A struct with the fields of TLS with a peer that has no agent. A field of its own could not be refused where it is
/// misspelt if they were flattened into it.
macro_rules! with_standard_tls {
    ($(#[$attribute:meta])* pub struct $name:ident { $($own:tt)* }) => {
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        $(#[$attribute])*
        pub struct $name {
            $($own)*
            /// The certificate that Sheath presents: `svid`, the pod's own; `none`, one-way TLS; or the name of a
            /// TlsContext of this namespace. The default is `svid`.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub certificate: Option<$crate::objects::schema::text::ObjectNameText>,
            /// Who vouches for the other side.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub trust: Option<$crate::objects::schema::tls::Trust>,
            /// Who the other side must be.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub expect: Option<$crate::objects::schema::tls::Expect>,
            /// Certificates or keys, one of which the other side must have. With `trust`, in addition to it.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(min = 1, max = 32))]
            pub pins: Vec<$crate::objects::schema::tls::Pin>,
            /// Protocols to agree on, in order of preference.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(min = 1, max = 16))]
            pub alpn: Vec<$crate::objects::schema::text::Protocol>,
            /// The oldest version of TLS that will do; by default `1.3`.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub min_version: Option<$crate::objects::schema::tls::TlsVersion>,
            /// The newest version of TLS that will do; by default `1.3`.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub max_version: Option<$crate::objects::schema::tls::TlsVersion>,
            /// Cipher suites, by their names of IANA or OpenSSL, in order of preference.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = $crate::objects::schema::rules::SET))]
            pub cipher_suites: Vec<$crate::objects::schema::tls::SuiteName>,
            /// Key agreements, in order of preference.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = $crate::objects::schema::rules::SET))]
            pub curves: Vec<$crate::objects::schema::tls::CurveName>,
        }
    };
}
pub(super) use with_standard_tls;
