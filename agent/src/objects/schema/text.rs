//! Texts with a syntax of their own. Each is judged by the API server where it stands, so that what it says names the
//! very entry of a list.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rules::rules;

macro_rules! text {
    ($(#[doc = $doc:literal])* $name:ident, $longest:literal, $rules:expr) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
                json_schema!({
                    "type": "string",
                    "maxLength": $longest,
                    "x-kubernetes-validations": rules(&$rules),
                })
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

/// The prefix of a destination, without brackets and port.
macro_rules! prefix {
    () => {
        "self.find('^[\\\\[]?([0-9]+[.][0-9.]+|[0-9a-fA-F]*:[0-9a-fA-F:.]*)(/[0-9]+)?').replace('[', '')"
    };
}

/// True for what has the form of a destination.
macro_rules! is_formed {
    () => {
        "self.matches('^([\\\\[][0-9a-fA-F:.]+(/[0-9]{1,3})?[\\\\]](:[0-9]{1,5})?|[0-9.]+(/[0-9]{1,2})?(:[0-9]{1,5})?|[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*(/[0-9]{1,3})?)$')"
    };
}

/// True for what is an address or a prefix, host bits apart.
macro_rules! is_prefix {
    () => {
        concat!("(isIP(", prefix!(), ") || isCIDR(", prefix!(), "))")
    };
}

/// True where there is no port, or one that somebody can listen on.
macro_rules! has_good_port {
    () => {
        "(!self.matches('([\\\\]]|^[^:]+):[0-9]{1,5}$') || (int(self.find('[0-9]+$')) >= 1 && int(self.find('[0-9]+$')) <= 65535))"
    };
}

/// True for a DNS name, with or without a port.
macro_rules! is_named {
    () => {
        "self.matches('^([a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?[.])*([a-zA-Z]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?)[.]?(:[0-9]{1,5})?$')"
    };
}

/// True where no bit is set behind the prefix.
macro_rules! is_network {
    () => {
        concat!(
            "(!isCIDR(",
            prefix!(),
            ") || cidr(",
            prefix!(),
            ") == cidr(",
            prefix!(),
            ").masked())"
        )
    };
}

const PORT: &str = "the port must be a number from 1 to 65535";
const HOST_BITS: &str = "host bits are set; write the network, like `10.0.2.0/24`, or the address alone, like `10.0.2.7`";

text!(
    /// Addresses, and a port or all ports: `10.0.2.0/24`, `10.0.2.7:8080`, `fd00::/64`, `[fd00::/64]:8443`.
    Destination,
    64,
    [
        (
            concat!(is_formed!(), " && ", is_prefix!()),
            "must be a destination; write `10.0.2.0/24`, `10.0.2.7:8080`, `fd00::/64` or `[fd00::/64]:8443`"
        ),
        (concat!("!(", is_formed!(), ") || ", has_good_port!()), PORT),
        (concat!("!(", is_formed!(), ") || ", is_network!()), HOST_BITS),
    ]
);

text!(
    /// A destination (`10.0.2.0/24`, `[fd00::/64]:8443`), or a DNS name, with or without a port
    /// (`billing.example.com:8443`).
    Place,
    260,
    [
        (
            concat!(is_named!(), " || (", is_formed!(), " && ", is_prefix!(), ")"),
            "must be a destination, like `10.0.2.0/24` or `[fd00::/64]:8443`, or a DNS name, like `billing.example.com:8443`"
        ),
        (
            concat!("!(", is_formed!(), " || ", is_named!(), ") || ", has_good_port!()),
            PORT
        ),
        (concat!("!(", is_formed!(), ") || ", is_network!()), HOST_BITS),
        (
            "!self.matches('(^|[.])localhost[.]?(:[0-9]+)?$')",
            "`localhost` never leaves the machine, and is never protected"
        ),
    ]
);

text!(
    /// A range of addresses: `10.0.2.0/24`, `fd00::/64`; or one address.
    Cidr,
    49,
    [
        (
            "isCIDR(self) || isIP(self)",
            "must be a range of addresses; write `10.0.2.0/24`, `fd00::/64`, or one address"
        ),
        ("!isCIDR(self) || cidr(self) == cidr(self).masked()", HOST_BITS),
    ]
);

text!(
    /// A SPIFFE ID: `spiffe://example.org/ns/shop/sa/web`.
    SpiffeIdText,
    1024,
    [
        (
            "self.matches('^spiffe://[a-z0-9._-]+(/[a-zA-Z0-9._-]+)+$')",
            "must be a SPIFFE ID; write `spiffe://<trust domain>/<path>`, like `spiffe://example.org/ns/shop/sa/web`"
        ),
        (
            "!self.matches('/[.][.]?(/|$)')",
            "a SPIFFE ID has no segment `.` or `..`"
        ),
    ]
);

text!(
    /// A SPIFFE ID, or `spiffe://<trust domain>/*` for every one of a trust domain.
    IdPatternText,
    640,
    [
        (
            "self.matches('^spiffe://[a-z0-9._-]+(/[*]|(/[a-zA-Z0-9._-]+)+)$')",
            "must be a SPIFFE ID, like `spiffe://example.org/ns/shop/sa/web`, or `spiffe://example.org/*` for every one of a trust domain"
        ),
        (
            "!self.matches('/[.][.]?(/|$)')",
            "a SPIFFE ID has no segment `.` or `..`"
        ),
    ]
);

text!(
    /// The name of a trust domain: `example.org`.
    TrustDomainName,
    255,
    [(
        "self.matches('^[a-z0-9._-]+$')",
        "must be the name of a trust domain, like `example.org`: a-z, 0-9, `.`, `-` and `_`"
    )]
);

text!(
    /// The name of an object.
    ObjectNameText,
    253,
    [(
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "must be the name of an object: a-z, 0-9, `-` and `.`, with a letter or a digit at either end"
    )]
);

text!(
    /// The name of a namespace.
    NamespaceName,
    63,
    [(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "must be the name of a namespace: a-z, 0-9 and `-`, with a letter or a digit at either end"
    )]
);

text!(
    /// The name of a namespace, or `*` for every one.
    NamespaceChoice,
    63,
    [(
        "self == '*' || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "must be the name of a namespace, or `*` for every one"
    )]
);

text!(
    /// A key of a Secret or ConfigMap.
    DataKey,
    253,
    [(
        "self.matches('^[-._a-zA-Z0-9]+$')",
        "must be a key of a Secret or ConfigMap, like `ca.crt`"
    )]
);

text!(
    /// A SHA-256 digest.
    Digest,
    95,
    [(
        "self.matches('^([0-9a-fA-F]{64}|([0-9a-fA-F]{2}:){31}[0-9a-fA-F]{2}|[A-Za-z0-9+/]{43}=)$')",
        "must be a SHA-256 digest, in hexadecimal (64 digits) or base64 (44 characters)"
    )]
);

text!(
    /// A DNS name.
    DnsNameText,
    253,
    [(
        "self.matches('^([a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?[.])*[a-zA-Z]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$')",
        "must be a DNS name, like `billing.example.com`"
    )]
);

text!(
    /// A URI, compared byte for byte.
    UriText,
    1024,
    [(
        "self.matches('^[a-zA-Z][-+.a-zA-Z0-9]*:[!-~]+$')",
        "must be a URI, like `urn:example:billing`"
    )]
);

text!(
    /// A protocol of ALPN, like `h2`.
    Protocol,
    255,
    [
        ("self != ''", "must be the name of a protocol, like `h2`"),
        ("!self.startsWith('sheath/')", "protocols of agents (`sheath/...`) cannot be asked for"),
    ]
);

text!(
    /// A length of time: `500ms`, `10s`, `5m` or `24h`.
    PeriodText,
    10,
    [(
        "self.matches('^[0-9]+(ms|s|m|h)$') && self.matches('[1-9]')",
        "must be a length of time longer than zero; write it like `500ms`, `10s`, `5m` or `24h`"
    )]
);

text!(
    /// A value of a label.
    LabelValue,
    63,
    [(
        "self.matches('^([a-zA-Z0-9]([-._a-zA-Z0-9]*[a-zA-Z0-9])?)?$')",
        "must be the value of a label: letters, digits, `-`, `_` and `.`, with a letter or a digit at either end"
    )]
);

text!(
    /// The key of a label, with or without a prefix: `app.kubernetes.io/name`.
    LabelKey,
    317,
    [(
        "self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-zA-Z0-9]([-._a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$')",
        "must be the key of a label, like `app.kubernetes.io/name`"
    )]
);
