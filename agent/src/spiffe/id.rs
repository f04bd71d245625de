//! SPIFFE IDs and trust domains, parsed by the letter of the SPIFFE-ID standard (section 2) and compared byte
//! for byte.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest SPIFFE ID, in bytes (SPIFFE-ID, 2.3).
const MAX_ID: usize = 2048;
/// Longest trust domain name, in bytes (SPIFFE-ID, 2.3).
const MAX_TRUST_DOMAIN: usize = 255;

/// Why a text is no SPIFFE ID or trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    #[error("does not begin with `spiffe://`")]
    Scheme,
    #[error("has no trust domain")]
    NoTrustDomain,
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    #[error("has a trust domain with characters other than a-z, 0-9, `.`, `-` and `_`")]
    TrustDomainCharacter,
    #[error("has no path, so it names a trust domain and not a workload")]
    NoPath,
    #[error("has a path with an empty segment or a trailing slash")]
    EmptySegment,
    #[error("has a path with the segment `.` or `..`")]
    DotSegment,
    #[error("has a path with characters other than a-z, A-Z, 0-9, `.`, `-` and `_`")]
    PathCharacter,
}

/// The name of a trust domain, as `example.org`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.is_empty() {
            return Err(SpiffeError::NoTrustDomain);
        }
        if text.len() > MAX_TRUST_DOMAIN {
            return Err(SpiffeError::TooLong(MAX_TRUST_DOMAIN));
        }
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-_".contains(&c);
        if !text.bytes().all(allowed) {
            return Err(SpiffeError::TrustDomainCharacter);
        }
        Ok(Self(text.into()))
    }
}

impl TrustDomain {
    /// The SPIFFE ID of the domain itself, as signing certificates carry it.
    #[must_use]
    pub fn id(&self) -> String {
        format!("spiffe://{self}")
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The SPIFFE ID of a workload, as `spiffe://example.org/ns/demo/sa/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_ID {
            return Err(SpiffeError::TooLong(MAX_ID));
        }
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeError::Scheme)?;
        let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        let trust_domain = domain.parse()?;
        if rest.len() == domain.len() {
            return Err(SpiffeError::NoPath);
        }
        for segment in path.split('/') {
            check_segment(segment)?;
        }
        Ok(Self { text: text.into(), trust_domain })
    }
}

fn check_segment(segment: &str) -> Result<(), SpiffeError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
    match segment {
        "" => Err(SpiffeError::EmptySegment),
        "." | ".." => Err(SpiffeError::DotSegment),
        _ if !segment.bytes().all(allowed) => Err(SpiffeError::PathCharacter),
        _ => Ok(()),
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error| format!("SPIFFE ID `{text}` {error}"))
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error| format!("trust domain `{text}` {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_the_standard_allows() {
        for id in
            ["spiffe://example.org/ns/demo/sa/web", "spiffe://a_b-c.1/X", "spiffe://td/a..b/.c"]
        {
            let parsed: SpiffeId = id.parse().unwrap();
            assert_eq!(parsed.as_str(), id);
        }
    }

    #[test]
    fn refuses_what_the_standard_forbids() {
        use SpiffeError::*;
        for (id, expected) in [
            ("", Scheme),
            ("https://example.org/web", Scheme),
            ("SPIFFE://example.org/web", Scheme),
            ("spiffe:///web", NoTrustDomain),
            ("spiffe://example.org", NoPath),
            ("spiffe://example.org/", EmptySegment),
            ("spiffe://example.org/web/", EmptySegment),
            ("spiffe://example.org//web", EmptySegment),
            ("spiffe://example.org/./web", DotSegment),
            ("spiffe://example.org/a/..", DotSegment),
            ("spiffe://Example.org/web", TrustDomainCharacter),
            ("spiffe://example.org:443/web", TrustDomainCharacter),
            ("spiffe://user@example.org/web", TrustDomainCharacter),
            ("spiffe://example.org/web?x=1", PathCharacter),
            ("spiffe://example.org/web#x", PathCharacter),
            ("spiffe://example.org/%77eb", PathCharacter),
            ("spiffe://example.org/we\0b", PathCharacter),
            ("spiffe://example.org/wéb", PathCharacter),
        ] {
            assert_eq!(id.parse::<SpiffeId>(), Err(expected), "{id}");
        }
        let long = format!("spiffe://example.org/{}", "a".repeat(MAX_ID));
        assert_eq!(long.parse::<SpiffeId>(), Err(TooLong(MAX_ID)));
        let long = "a".repeat(MAX_TRUST_DOMAIN + 1);
        assert_eq!(long.parse::<TrustDomain>(), Err(TooLong(MAX_TRUST_DOMAIN)));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_normalises(text in ".{0,80}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), text);
            }
        }

        #[test]
        fn well_formed_ids_parse(domain in "[a-z0-9._-]{1,30}", path in "(/[a-zA-Z0-9_-]{1,10}){1,5}") {
            let text = format!("spiffe://{domain}{path}");
            let id: SpiffeId = text.parse().unwrap();
            prop_assert_eq!(id.trust_domain().to_string(), domain);
        }
    }
}
